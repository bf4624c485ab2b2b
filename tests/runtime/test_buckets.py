"""SQL Lab's rows in a bucket: against a server that speaks S3's protocol, and against ones that are down, slow or refuse."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.results import buckets, store
from runtime.results.buckets import Bucket, BucketError
from runtime.results.envelope import OVERHEAD_BYTES, signing_secret, wrap
from tests.aws_services import aws_services
from tests.runtime.stacks import topology
from topology import metric_names
from topology.settings.caching import Caching, ResultsBucket

pytestmark = pytest.mark.thorough

MOST = 1 << 20
SECRET = signing_secret("a-secret-key", "query_results")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with aws_services() as url:
        client = boto3.client(
            "s3", endpoint_url=url, region_name="eu-central-1", aws_access_key_id="t", aws_secret_access_key="t"
        )
        client.create_bucket(Bucket="results", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield url


def at(endpoint: str, name: str = "results", most: int = MOST) -> Bucket:
    return Bucket(ResultsBucket(name=name, region="eu-central-1", endpoint=endpoint, prefix="here/"), "query_results", most)


def kept(endpoint: str, **changes: Any) -> store.BucketStore:
    caching: Caching = topology("enterprise").caching.model_copy(update=changes)
    return store.BucketStore(at(endpoint), "query_results", "query_results:", SECRET, caching)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=200), content=st.binary(max_size=2000))
def test_an_object_comes_back_as_it_was_whatever_its_name(endpoint: str, name: str, content: bytes) -> None:
    bucket = at(endpoint)
    bucket.put(name, content)
    assert bucket.get(name) == content
    bucket.delete(name)
    assert bucket.get(name) is None


def test_a_key_tells_nothing_that_a_person_wrote(endpoint: str) -> None:
    key = at(endpoint).key("query_results:@acme:secret-project")
    assert key.startswith("here/query_results/")
    assert "acme" not in key
    assert "secret" not in key


def test_a_value_ends_to_the_second_though_its_object_stays(endpoint: str) -> None:
    values = kept(endpoint)
    name = "query_results:@:a"
    values.write(name, b"rows", 3600, 3600, 0.0)
    found = values.read(name)
    assert found is not None
    assert found.value == b"rows"
    assert values.has(name)
    values.write(name, b"rows", -1, 3600, 0.0)
    assert values.read(name) is None
    assert not values.has(name)
    assert at(endpoint).get(name) is not None, "the object is there still, so its end was what counted"


def test_what_we_did_not_sign_for_this_key_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(store.counters, "count", lambda name, by=1, **labels: counted.append(name))
    values = kept(endpoint)
    soon = time.time() + 60
    for forged in (
        b"junk",
        wrap(b"x", computed=0, expires=soon, seconds=0, codec="none", above=0).sealed(b"another", "k"),
        wrap(b"x", computed=0, expires=soon, seconds=0, codec="none", above=0).sealed(SECRET, "another key"),
    ):
        at(endpoint).put("k", forged)
        assert values.read("k") is None
    assert counted == [metric_names.CACHE_REFUSED] * 3


def test_what_is_too_large_is_neither_stored_nor_read(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.counters, "count", lambda *_, **__: None)
    with pytest.raises(store.TooLargeError):
        kept(endpoint, max_result_bytes=100).write("large", b"x" * 101, 60, 60, 0.0)
    assert at(endpoint).get("large") is None
    at(endpoint).put("large", b"x" * (100 + OVERHEAD_BYTES + 1))
    with pytest.raises(BucketError, match="none of ours has more than"):
        at(endpoint, most=100 + OVERHEAD_BYTES).get("large")


def test_a_bucket_that_is_not_there_is_said_by_name(endpoint: str) -> None:
    bucket = at(endpoint, "elsewhere")
    with pytest.raises(BucketError, match=r"s3://elsewhere/.*NoSuchBucket"):
        bucket.put("a", b"x")
    with pytest.raises(BucketError, match="NoSuchBucket"):
        bucket.get("a")


def test_a_forked_child_has_a_client_of_its_own(endpoint: str) -> None:
    """A connection that two processes write to gives each the other's answers."""
    bucket = at(endpoint)
    bucket.put("mine", b"the parent's")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        ours = buckets._client.__wrapped__
        made: list[int] = []
        buckets._client = lambda region, url, pid: made.append(pid) or ours(region, url, pid)  # type: ignore[assignment]
        content = bucket.get("mine") or b""
        os.write(writer, f"{made == [os.getpid()]} {content.decode()}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"True the parent's"
    os.close(reader)
    os.close(writer)


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Generator[str]:
    """A server that does `answer` with every request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer(self)

        do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refuse(code: int, name: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        body = f"<Error><Code>{name}</Code><Message>no</Message></Error>".encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/xml")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def attempts(bucket: Bucket) -> list[BucketError]:
    """What each operation fails with."""
    found: list[BucketError] = []
    for call in (lambda: bucket.put("a", b"x"), lambda: bucket.get("a"), lambda: bucket.delete("a")):
        with pytest.raises(BucketError) as caught:
            call()
        found.append(caught.value)
    return found


def test_a_server_that_is_down_is_an_error_that_says_where() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound and not listening: refused, and nobody else gets the port meanwhile.
        for error in attempts(at(f"http://127.0.0.1:{taken.getsockname()[1]}")):
            assert "s3://results/" in str(error)
            assert "EndpointConnectionError" in str(error)


def test_403_says_which_rights_are_needed() -> None:
    with answering(refuse(403, "AccessDenied")) as url:
        for error in attempts(at(url)):
            assert "AccessDenied" in str(error)
            assert "s3:GetObject" in str(error)


def test_a_server_that_fails_is_asked_once_more_and_no_more() -> None:
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.command)
        refuse(503, "SlowDown")(request)

    with answering(answer) as url, pytest.raises(BucketError, match="SlowDown"):
        at(url).get("a")
    assert asked == ["GET"] * buckets.ATTEMPTS


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits of tenths of a second, for servers that never get any better."""
    monkeypatch.setattr(buckets, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(buckets, "READ_SECONDS", 0.3)
    buckets._client.cache_clear()
    yield
    buckets._client.cache_clear()


@pytest.mark.usefixtures("_impatient")
def test_a_silent_server_is_given_up() -> None:
    over = threading.Event()

    def waits(_: BaseHTTPRequestHandler) -> None:
        over.wait(60)

    try:
        with answering(waits) as url:
            for error in attempts(at(url)):
                assert "ReadTimeoutError" in str(error)
            over.set()
    finally:
        over.set()


@pytest.mark.usefixtures("_impatient")
def test_a_server_that_drips_is_given_up_though_it_is_never_silent() -> None:
    over = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(200 * buckets._CHUNK_BYTES))
        request.end_headers()
        try:
            while not over.is_set():
                request.wfile.write(b"x" * (buckets._CHUNK_BYTES // 4))
                over.wait(0.05)
        except OSError:
            pass

    with answering(answer) as url:
        with pytest.raises(BucketError, match="did not come within"):
            at(url).get("a")
        over.set()


@pytest.mark.usefixtures("_impatient")
def test_an_object_that_breaks_off_is_an_error_and_no_shorter_object() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 10)
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True

    with answering(answer) as url, pytest.raises(BucketError):
        at(url).get("a")
