"""The web server's real command line (with an application of the test's) among clients that are slow, silent or gone."""

from __future__ import annotations

import http.client
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.runtime.conftest import PROJECT
from tests.runtime.web.server import ANSWERED, WebServer, running

pytestmark = pytest.mark.superset

HALF = b"POST /echo HTTP/1.1\r\nHost: x\r\nX-A: "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("web")) as found:
        yield found


def test_silent_and_half_sent_requests_hold_no_thread(server: WebServer) -> None:
    """Five hundred of each, and one process with ten threads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    connections = [server.connect(sent) for _ in range(500) for sent in (b"", HALF)]
    try:
        with ThreadPoolExecutor(server.threads) as clients:
            answers = list(clients.map(server.get, ["/health", "/page"] * server.threads))
        assert answers == [(200, b"OK"), (200, b"/page")] * server.threads
    finally:
        for connection in connections:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_half_sent_request_is_answered_when_it_is_whole(server: WebServer) -> None:
    with server.connect(HALF) as connection, connection.makefile("rb") as stream:
        assert server.get("/page") == (200, b"/page")
        connection.sendall(b"b\r\nContent-Length: 10\r\n\r\n01234")
        assert server.get("/page") == (200, b"/page")
        connection.sendall(b"56789")
        assert _answer(stream) == b"10"


def test_a_client_keeps_its_connection(server: WebServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWERED)
    for body in (b"", b"x" * 10, b"y" * 200_000, b"z"):
        connection.request("POST", "/echo", body)
        assert connection.getresponse().read() == str(len(body)).encode()
        # A body that the application does not read is no part of the next request.
        connection.request("POST", "/page", body)
        assert connection.getresponse().read() == b"/page"
    connection.close()


def test_requests_sent_together_are_answered_one_after_the_other(server: WebServer) -> None:
    whole = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    with server.connect(whole * 3 + whole[:40]) as connection, connection.makefile("rb") as stream:
        assert [_answer(stream) for _ in range(3)] == [b"3"] * 3
        connection.sendall(whole[40:])
        assert _answer(stream) == b"3"


def test_health_is_answered_while_every_thread_is_at_work(tmp_path: Path) -> None:
    with running(tmp_path) as server, ThreadPoolExecutor(server.threads + 1) as clients:
        held = [clients.submit(server.get, "/held") for _ in range(server.threads)]
        waits = clients.submit(server.get, "/page")
        assert server.get("/health") == (200, b"OK")
        assert not waits.done()
        server.release.touch()
        assert [each.result() for each in held] == [(200, b"/held")] * server.threads
        assert waits.result() == (200, b"/page")


def test_with_few_descriptors_the_oldest_silent_client_makes_room(tmp_path: Path) -> None:
    """300 files a process: two hundred clients beside its own; those who ask are answered, whoever is silent."""
    with running(tmp_path, descriptors=300) as server:
        silent = [server.connect(HALF) for _ in range(400)]
        assert [server.get(path) for path in ("/health", "/page")] == [(200, b"OK"), (200, b"/page")]
        assert silent[0].recv(4096) == b""
        assert b"Booting worker" in server.log.read_bytes()
        assert server.log.read_bytes().count(b"Booting worker") == 1, server.log.read_text()
        for connection in silent:
            connection.close()


def test_too_few_descriptors_are_said_at_start(tmp_path: Path) -> None:
    with running(tmp_path, descriptors=100) as server:
        assert server.process.wait(60) != 0
        assert "this process may open 100 files and needs more than 114 for its 10 threads" in server.log.read_text()


def test_a_client_that_does_not_read_loses_its_connection_not_a_thread(tmp_path: Path) -> None:
    sooner = "from runtime.web import paced_socket; paced_socket.GRACE_SECONDS = 0.2"
    (tmp_path / "sitecustomize.py").write_text(sooner)
    with running(tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{PROJECT}") as server:
        unread = [server.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(server.threads * 2)]
        # And who sends a large body a byte at a time.
        unread += [
            server.connect(b"POST /echo HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + bytes(65536)) for _ in range(20)
        ]
        assert server.get("/page") == (200, b"/page")
        for connection in unread:
            connection.close()


def _answer(stream: BinaryIO) -> bytes:
    """The body of the next answer on a connection."""
    lines = list(iter(stream.readline, b"\r\n"))
    (length,) = (int(line.split(b":")[1]) for line in lines if line.startswith(b"Content-Length:"))
    return stream.read(length)
