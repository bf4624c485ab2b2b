"""SQL Lab's rows in a bucket: the whole platform on this machine, with a store that is there, has lost some, is away, or refuses.

The store is moto's S3 behind a door that this module opens and shuts: Superset's processes meet it as they would meet AWS's.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import boto3
import httpx
import pytest

from client.errors import ExitCode, QueryFailedError, ResultExpiredError, UnreachableError
from client.superset_client import SupersetClient
from runtime.queries import query_tasks
from tests.aws_services import aws_services
from tests.local.conftest import RunningPlatform, up, write_stack
from tests.waiting import until
from topology import metric_names

pytestmark = pytest.mark.local

STACK = "in-a-bucket"
REGION, BUCKET = "eu-central-1", "results"
SECONDS = 120
Mode = Literal["open", "down", "silent", "refusing"]
FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Door:
    """An address that leads to a store, or does what `mode` says instead."""

    def __init__(self, store: str) -> None:
        self.mode: Mode = "open"
        self._over = threading.Event()
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                door.answer(self, store)

            do_PUT = do_DELETE = do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._handler = Handler
        self._server = self._listening(0)
        self.port = self._server.server_port

    def answer(self, request: BaseHTTPRequestHandler, store: str) -> None:
        """Answer one request as the mode is now."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.mode == "down":
            request.close_connection = True
        elif self.mode == "silent":
            self._over.wait()
            request.close_connection = True
        elif self.mode == "refusing":
            self._send(request, 403, {"Content-Type": "application/xml"}, FORBIDDEN)
        else:
            headers = {key: value for key, value in request.headers.items() if key.lower() != "connection"}
            answer = httpx.request(request.command, store + request.path, headers=headers, content=body, timeout=SECONDS)
            kept = {
                key: value for key, value in answer.headers.items() if key.lower() not in ("connection", "content-length")
            }
            self._send(request, answer.status_code, kept, answer.content)

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    @contextmanager
    def being(self, mode: Mode) -> Generator[None]:
        """`mode` in the block, and open again after it."""
        self.mode = mode
        if mode == "down":
            self.shut()
        try:
            yield
        finally:
            self.mode = "open"
            self._over.set()
            self._over = threading.Event()
            if mode == "down":
                self._server = self._listening(self.port)

    def shut(self) -> None:
        """Listen no more: who connects is refused."""
        self._server.shutdown()
        self._server.server_close()

    def _listening(self, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with aws_services() as url:
        yield url


@pytest.fixture(scope="module")
def bucket(s3: str) -> Any:
    """The bucket, to its owner."""
    resource: Any = boto3.resource(
        "s3", endpoint_url=s3, region_name=REGION, aws_access_key_id="owner", aws_secret_access_key="owner"
    )
    found = resource.Bucket(BUCKET)
    found.create(CreateBucketConfiguration={"LocationConstraint": REGION})
    return found


@pytest.fixture(scope="module")
def door(s3: str) -> Iterator[Door]:
    made = Door(s3)
    yield made
    made.shut()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, bucket: Any, door: Door) -> Iterator[RunningPlatform]:
    folder = tmp_path_factory.mktemp("bucket")
    environment = write_stack(
        folder,
        STACK,
        databases={"examples": {"sample": True, "allow_dml": True}},
        resilience={"max_retries": 1},
        caching={"bucket": {"name": BUCKET, "region": REGION, "endpoint": f"http://127.0.0.1:{door.port}"}},
    )
    credentials = {"AWS_ACCESS_KEY_ID": "superset", "AWS_SECRET_ACCESS_KEY": "superset", "AWS_EC2_METADATA_DISABLED": "true"}
    with up(folder, STACK, environment | credentials) as running:
        yield running


@pytest.fixture(scope="module")
def table(platform: RunningPlatform) -> str:
    """A table that queries write to."""
    with client_of(platform) as client:
        client.run("CREATE TABLE kept (what text)", platform.database_id)
    return "kept"


def client_of(platform: RunningPlatform) -> SupersetClient:
    """A client that asks again for a second alone: what Superset answers is of interest here."""
    password = platform.password_file.read_text().strip()
    return SupersetClient(platform.url, username=platform.username, password=password, retry_seconds=1)


def failures(platform: RunningPlatform, operation: str) -> float:
    """How often reading or writing results has failed, as Prometheus hears it."""
    answer = httpx.get(f"http://127.0.0.1:{platform.topology.exporter.port}/metrics", timeout=SECONDS)
    beginning = f'{metric_names.RESULTS_FAILED}{{cache="query_results",operation="{operation}"}} '
    (line,) = [line for line in answer.text.splitlines() if line.startswith(beginning)]
    return float(line.removeprefix(beginning))


def log_of(platform: RunningPlatform, process: str) -> str:
    return (platform.state_dir / "logs" / f"{process}.log").read_text()


def test_rows_go_to_the_bucket_and_come_back(platform: RunningPlatform, bucket: Any) -> None:
    with client_of(platform) as client:
        before = {each.key for each in bucket.objects.all()}
        run = client.run("SELECT n, 'in-clear' AS word FROM generate_series(1, 3) AS n", platform.database_id)
        assert [row["n"] for row in run.result.rows] == [1, 2, 3]
        (new,) = {each.key for each in bucket.objects.all()} - before
        # Nobody reads from its name whose it is, and no process has written it to Redis as well.
        assert str(run.status.results_key) not in new
        assert new.startswith("query_results/")
        assert client.results(run.status) == run.result


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("down", "EndpointConnectionError"),
        pytest.param("silent", "ReadTimeoutError", marks=pytest.mark.further),
        pytest.param(
            "refusing",
            "AccessDenied; the process's role must be allowed s3:GetObject, s3:PutObject and s3:DeleteObject",
            marks=pytest.mark.further,
        ),
    ],
)
def test_a_store_that_is_away_loses_no_result_and_hides_no_commit(
    platform: RunningPlatform, door: Door, table: str, mode: Mode, why: str
) -> None:
    """A read fails and says what to do; a write says that it was committed; what was stored comes back with the store."""
    with client_of(platform) as client:
        earlier = client.run("SELECT 'earlier' AS word", platform.database_id)
        reads, writes = failures(platform, "read"), failures(platform, "write")
        with door.being(mode):
            read = client.submit("SELECT 1", platform.database_id)
            with pytest.raises(QueryFailedError, match=query_tasks.READ_NOT_KEPT):
                client.wait(read, timeout=SECONDS)
            write = client.submit(f"INSERT INTO {table} VALUES ('{mode}') RETURNING what", platform.database_id)
            with pytest.raises(QueryFailedError, match=query_tasks.COMMITTED_NOT_KEPT):
                client.wait(write, timeout=SECONDS)
            with pytest.raises(UnreachableError, match="their store does not answer"):
                client.results(earlier.status)
            told = platform.run("query", "results", str(earlier.status.id), "--stack", STACK, check=False)
            assert told.returncode == ExitCode.UNREACHABLE
            assert "They are not lost; try again in a moment" in told.stderr
            # Nothing else depends on it.
            assert platform.status["state"] == "running"
            assert httpx.get(f"{platform.url}/health", timeout=SECONDS).text == "OK"
            until(lambda: failures(platform, "read") > reads, SECONDS, "failed reads are counted")
            until(lambda: failures(platform, "write") > writes, SECONDS, "failed writes are counted")
        for process in ("web", "worker-default"):
            assert f"s3://{BUCKET}/query_results/" in log_of(platform, process)
            assert why in log_of(platform, process)
        assert client.results(earlier.status) == earlier.result
        kept = client.run(f"SELECT count(*) AS times FROM {table} WHERE what = '{mode}'", platform.database_id)
        assert kept.result.rows == [{"times": 1}]


def test_an_object_that_the_lifecycle_removed_is_an_expired_result(platform: RunningPlatform, bucket: Any) -> None:
    with client_of(platform) as client:
        run = client.run("SELECT 1", platform.database_id)
        bucket.objects.all().delete()
        with pytest.raises(ResultExpiredError, match="no longer has its rows"):
            client.results(run.status)
        # Such a query is no failed one.
        assert client.status(run.status.id).state == "success"


def test_a_result_ends_to_the_second_though_its_object_stays(platform: RunningPlatform, bucket: Any) -> None:
    """S3's lifecycle counts whole days: the end of a result is its envelope's."""
    with client_of(platform) as client:
        session = client._session  # pyright: ignore[reportPrivateUsage]
        address = f"/api/v1/database/{platform.database_id}"
        assert session.call("PUT", address, body={"cache_timeout": 1}).status_code == 200
        try:
            before = {each.key for each in bucket.objects.all()}
            query = client.wait(client.submit("SELECT 1", platform.database_id), timeout=SECONDS)

            def ended() -> bool:
                try:
                    client.results(query)
                except ResultExpiredError:
                    return True
                return False

            until(ended, SECONDS, "the result ends")
            assert {each.key for each in bucket.objects.all()} - before, "its object is there still"
        finally:
            assert session.call("PUT", address, body={"cache_timeout": None}).status_code == 200
