"""The web server with the command line of a stack and an application of the tests' own."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import binaries
from tests.runtime.conftest import PROJECT
from tests.runtime.stacks import environment, topology
from tests.waiting import free_port, until
from topology.commands import TOPOLOGY_ENV, web

#: Seconds that no answer takes; a client that waits longer has none.
ANSWERED = 60


@dataclass(frozen=True)
class WebServer:
    port: int
    threads: int
    process: subprocess.Popen[bytes]
    log: Path
    release: Path

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWERED)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWERED)
        connection.sendall(sent)
        return connection


@contextmanager
def running(
    folder: Path, descriptors: int | None = None, application: str = "application", **changes: str
) -> Generator[WebServer]:
    """One process of the web server of the stack `minimal`."""
    port = free_port()
    planned = topology("minimal")
    tier = planned.web.model_copy(update={"processes": 1, "bind": "127.0.0.1", "port": port})
    planned = planned.model_copy(update={"web": tier})
    file = folder / "topology.json"
    file.write_text(planned.model_dump_json())
    limit = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
    command = [*limit, *web(planned)[:-1], f"tests.runtime.web.answering_process:{application}"]
    env = {
        "PATH": f"{binaries.superset_python().parent}:/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        TOPOLOGY_ENV: str(file),
        "RELEASE": str(folder / "release"),
        **environment(planned),
        **changes,
    }

    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(command, env=env, cwd=PROJECT, stdout=written, stderr=written)
        server = WebServer(port, tier.threads, process, log, folder / "release")
        try:
            until(lambda: process.poll() is not None or _takes(port), 60, "the web server listens")
            yield server
        finally:
            server.release.touch()
            process.terminate()
            process.wait(60)


def _takes(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
