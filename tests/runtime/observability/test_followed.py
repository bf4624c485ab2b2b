"""One query followed by its id: real web tier, real worker, a collector, the logs, the audit trail and the reports."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.errors import QueryFailedError
from client.superset_client import SupersetClient
from local import binaries
from runtime.environment import audit_records
from tests.runtime.conftest import PROJECT, Prepared, run_script
from tests.waiting import free_port, until
from topology import commands
from topology.model import Topology

pytestmark = [pytest.mark.superset, pytest.mark.further]

SECRET = "not-for-a-collector"


class Collector:
    """A receiver of OTLP over HTTP on loopback: keeps each body that is sent to it as a file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        kept = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: tests read the spans."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._lock = threading.Lock()
        self._count = 0
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _keep(self, path: str, body: bytes) -> None:
        with self._lock:
            self._count += 1
            assert path == "/v1/traces"
            new = self.folder / f"{self._count:04}.new"
            new.write_bytes(body)
            new.rename(new.with_suffix(".otlp"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@dataclass
class Followed:
    """What is known of two queries, after their processes have ended: `spans` as the collector got them, lines by process."""

    query_id: str
    failed_id: str
    spans: list[dict[str, Any]]
    logs: Mapping[str, list[dict[str, Any]]]
    trail: list[dict[str, Any]]
    slow: dict[str, Any]
    cost: dict[str, Any]

    def of(self, service: str, **attributes: object) -> list[dict[str, Any]]:
        """The spans of a service with these of this project's attributes."""
        wanted = {f"superset_async.{name}": value for name, value in attributes.items()}
        return [each for each in self.spans if each["service"] == service and wanted.items() <= each["attributes"].items()]


@pytest.fixture(scope="module")
def followed(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("followed")
    collector = Collector(folder / "collected")
    plan = prepared.topology
    changed = plan.model_copy(
        update={
            "tracing": plan.tracing.model_copy(update={"endpoint": collector.url}),
            "web": plan.web.model_copy(update={"port": free_port(), "processes": 1, "behind_proxy": False}),
        }
    )
    with ExitStack() as stack:
        processes = {
            role: _started(stack, prepared, changed, role, command, folder)
            for role, command in (("web", commands.web(changed)), ("worker", commands.worker(changed.pool("default"))))
        }
        url = f"http://127.0.0.1:{changed.web.port}"
        until(lambda: _answers(url) or processes["web"].poll() is not None, 120, "the web tier answers")
        log = folder / "worker.err"
        until(lambda: " ready." in log.read_text() or processes["worker"].poll() is not None, 120, "the worker is ready")
        with SupersetClient(url, username=changed.admin_username, password="first-password") as client:
            client.login()
            database = client.databases()["analytics"]
            done = client.submit(f"SELECT '{SECRET}' AS told", database)
            client.results(client.wait(done))
            wrong = client.submit(f"SELECT '{SECRET}' FROM nowhere", database)
            with pytest.raises(QueryFailedError):
                client.wait(wrong)
            slow, cost = client.operations.slow("total", 1), client.operations.usage("user", 1)
        for process in processes.values():
            process.terminate()
            process.wait(timeout=60)
    texts = {role: (folder / f"{role}.err").read_text().splitlines() for role in processes}
    yield Followed(
        query_id=str(done.id),
        failed_id=str(wrong.id),
        spans=run_script("observability.otlp_process", prepared.environment("web"), str(collector.folder)),
        logs={role: [json.loads(line) for line in lines if line.startswith("{")] for role, lines in texts.items()},
        trail=audit_records.read((folder / "web.out").read_text().splitlines()),
        slow=slow,
        cost=cost,
    )
    collector.server.shutdown()


def _started(
    stack: ExitStack, prepared: Prepared, plan: Topology, role: str, command: list[str], folder: Path
) -> subprocess.Popen[bytes]:
    env = prepared.services.process_environment(plan, role, f"followed-{role}")
    program = [str(binaries.superset_python().parent / command[0]), *command[1:]]
    out, err = (stack.enter_context((folder / f"{role}.{name}").open("wb")) for name in ("out", "err"))
    process = subprocess.Popen(program, env=env, cwd=PROJECT, stdout=out, stderr=err)

    def end() -> None:
        if process.poll() is None:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def test_one_trace_goes_from_the_request_to_the_workers_database(followed: Followed) -> None:
    (asked,) = [
        each
        for each in followed.of("superset-web", query_id=followed.query_id)
        if each["attributes"].get("http.route") == "/api/v1/sqllab/execute/"
    ]
    assert asked["attributes"] | {"superset_async.task_id": f"sql-{followed.query_id}"} == asked["attributes"]
    names = {each["id"]: each for each in followed.spans if each["trace"] == asked["trace"]}
    (sent,) = [each for each in names.values() if each["name"] == "apply_async/sql_lab.get_sql_results"]
    (run,) = [each for each in names.values() if each["name"] == "run/sql_lab.get_sql_results"]
    assert (sent["service"], run["service"], run["parent"]) == ("superset-web", "superset-worker", sent["id"])
    assert run["attributes"]["superset_async.query_id"] == followed.query_id
    statements = [each for each in names.values() if each["parent"] == run["id"] and each["scope"].endswith("psycopg2")]
    assert "SELECT" in {each["name"] for each in statements}
    assert {each["attributes"]["db.name"] for each in statements} >= {"superset", "analytics"}


def test_no_span_has_a_statement_an_error_a_query_string_or_a_secret(followed: Followed) -> None:
    run = [each for each in followed.of("superset-worker", query_id=followed.failed_id) if each["name"].startswith("run/")]
    assert len(run) == 1
    told = json.dumps(followed.spans)
    for text in (SECRET, "nowhere", "first-password", "db.statement", "last_updated_ms", "key:'"):
        assert text not in told
    assert not {each["status"] for each in followed.spans} - {""}


def test_the_same_id_is_in_logs_trace_audit_trail_and_reports(followed: Followed) -> None:
    query_id, task_id = followed.query_id, f"sql-{followed.query_id}"
    (asked,) = [
        each
        for each in followed.of("superset-web", query_id=query_id)
        if each["attributes"].get("http.route") == "/api/v1/sqllab/execute/"
    ]
    trace = asked["trace"]
    access = [
        line for line in followed.logs["web"] if line["logger"] == "gunicorn.access" and line.get("query_id") == query_id
    ]
    assert trace in {line.get("trace_id") for line in access if line["path"] == "/api/v1/sqllab/execute/"}
    worker = [line for line in followed.logs["worker"] if line.get("task_id") == task_id]
    assert {"query_id": query_id, "trace_id": trace, "user": "admin"}.items() <= {
        key: value for line in worker for key, value in line.items()
    }.items()
    records = [each for each in followed.trail if each.get("query_id") == query_id]
    assert [(each["action"], each["user"]) for each in records] == [("query.run", "admin"), ("query.fetch", "admin")]
    assert (records[0]["task_id"], records[0]["trace_id"]) == (task_id, trace)
    assert query_id in {str(row["slowest"]) for row in followed.slow["rows"]}
    (row,) = [row for row in followed.cost["rows"] if row["user"] == "admin"]
    assert row["queries"] >= 2


def test_without_a_collector_nothing_of_opentelemetry_is_imported(prepared: Prepared) -> None:
    program = (
        "import sys; from runtime.start.gunicorn_config import post_fork; post_fork(None, None); "
        "from superset.app import create_app; create_app(); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [str(binaries.superset_python()), "-c", program],
        env={**os.environ, **prepared.environment("web")},
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
