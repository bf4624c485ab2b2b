"""What a request waits for a database for is bounded, limited and recorded: on the real web server, worker and PostgreSQL."""

from __future__ import annotations

import http.client
import json
import subprocess
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from tests.runtime.conftest import PROJECT, Prepared
from tests.runtime.queries.conftest import Web, Worker
from tests.waiting import free_port, until
from topology import commands

pytestmark = pytest.mark.superset

#: What a statement waits for that the test holds, and what is in its text.
LOCK = 4711
HELD = f"SELECT 1 AS one FROM pg_advisory_xact_lock_shared({LOCK})"
#: More than any answer takes here.
PATIENCE = 240


@dataclass
class Server:
    """The web tier as a process of gunicorn, and Bob as a client of it."""

    port: int
    process: subprocess.Popen[bytes]
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Status and text of an answer, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json", **self.headers})
            answer = connection.getresponse()
            for cookie in answer.headers.get_all("Set-Cookie") or []:
                if cookie.startswith("session=") and "X-CSRFToken" not in self.headers:
                    self.headers["Cookie"] = cookie.split(";")[0]
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def log_in(self, cookie: str) -> None:
        """Have the session of a browser: some of Superset's views take no bearer token."""
        self.headers["Cookie"] = f"session={cookie}"
        self.headers["X-CSRFToken"] = json.loads(self.ask("GET", "/api/v1/security/csrf_token/")[1])["result"]

    def query(self, sql: str, database: int) -> tuple[int, str]:
        """A synchronous query of SQL Lab."""
        body = {
            "database_id": database,
            "sql": sql,
            "runAsync": False,
            "client_id": uuid.uuid4().hex[:10],
            "schema": "public",
        }
        return self.ask("POST", "/api/v1/sqllab/execute/", body)

    def samples(self, dataset: int) -> tuple[int, str]:
        return self.ask("POST", f"/datasource/samples?datasource_type=table&datasource_id={dataset}&force=true", {})

    def values(self, dataset: int) -> tuple[int, str]:
        return self.ask("GET", f"/api/v1/datasource/table/{dataset}/column/one/values/")

    def csv(self, dataset: int) -> tuple[int, str]:
        query = {"columns": ["one"], "metrics": [], "orderby": [], "row_limit": 7, "filters": []}
        form = {"datasource": {"id": dataset, "type": "table"}, "queries": [query], "result_format": "csv", "force": True}
        return self.ask("POST", "/api/v1/chart/data", form)


@contextmanager
def serving(prepared: Prepared, web: Web, seconds: int, processes: int = 1) -> Generator[Server]:
    """The web tier with so many processes, whose requests wait for `seconds`."""
    plan = prepared.topology
    tier = plan.web.model_copy(update={"processes": processes, "bind": "127.0.0.1", "port": free_port()})
    own = plan.superset.model_copy(update={"settings": {**plan.superset.settings, "SQLLAB_TIMEOUT": seconds}})
    plan = plan.model_copy(update={"web": tier, "superset": own})
    env = prepared.services.process_environment(plan, "web", f"web-{seconds}")
    with (prepared.services.folder / f"web-{seconds}.log").open("wb") as log:
        process = subprocess.Popen(commands.web(plan), env=env, cwd=PROJECT, stdout=log, stderr=log)
        server = Server(tier.port, process)
        try:
            until(lambda: process.poll() is not None or _healthy(server), 120, "the web server answers")
            server.log_in(web("cookie"))
            yield server
        finally:
            process.terminate()
            process.wait(60)


def _healthy(server: Server) -> bool:
    try:
        return server.ask("GET", "/health")[0] == 200
    except OSError:
        return False


def number(prepared: Prepared, database: str) -> int:
    return int(prepared.services.sql(f"SELECT id FROM dbs WHERE database_name = '{database}'"))


def waiting(prepared: Prepared) -> set[int]:
    """The client ports of the statements that wait for the lock."""
    found = prepared.services.sql(
        f"SELECT client_port FROM pg_stat_activity WHERE query ILIKE '%lock_shared({LOCK})%' AND state = 'active' "
        "AND pid <> pg_backend_pid()",
        database="postgres",
    )
    return {int(port) for port in found.split()}


def ports(process: psutil.Process) -> set[int]:
    """The ports of the connections of a process and its children."""
    family = {process.pid, *(child.pid for child in process.children(recursive=True))}
    return {each.laddr.port for each in psutil.net_connections("inet") if each.pid in family and each.laddr}


def answered(answers: Sequence[Future[tuple[int, str]]], count: int) -> None:
    """Wait until so many requests were refused, and no other one has an answer."""
    until(lambda: sum(each.done() for each in answers) >= count, PATIENCE, f"{count} requests are answered")
    found = [each.result() for each in answers if each.done()]
    assert [status for status, _ in found] == [503] * count, found[0]


def recorded(prepared: Prepared) -> list[str]:
    """What the web tier has executed: user, database and outcome of each."""
    return prepared.services.sql(
        "SELECT username || ' ' || database_name || ' ' || outcome FROM superset_async_executions "
        "WHERE kind = 'request' AND queue = 'web' AND ended_at >= started_at ORDER BY started_at"
    ).splitlines()


def test_twenty_synchronous_queries_of_one_user_are_executed_by_workers_and_the_web_tier_answers(
    prepared: Prepared, web: Web, worker: Worker
) -> None:
    library = number(prepared, "library")
    with serving(prepared, web, 240) as server, ThreadPoolExecutor(20) as clients:
        with prepared.services.holding(f"SELECT pg_advisory_xact_lock({LOCK})", "analytics"):
            answers = [clients.submit(server.query, HELD, library) for _ in range(20)]
            answered(answers, 16)
            until(lambda: len(waiting(prepared)) == worker.size, PATIENCE, "the worker is at work")
            assert waiting(prepared) <= ports(psutil.Process(worker.process.pid))
            assert server.ask("GET", "/health") == (200, "OK")
            assert server.ask("GET", "/api/v1/database/")[0] == 200
            # His own bound counts them: they are queries like any others.
            states = prepared.services.sql("SELECT count(*) FROM query WHERE status IN ('pending', 'running')")
            assert int(states) >= 4
        found = sorted(each.result()[0] for each in answers)
        assert found == [200] * 4 + [503] * 16
        rows = [json.loads(each.result()[1]) for each in answers if each.result()[0] == 200]
        assert [row["data"] for row in rows] == [[{"one": 1}]] * 4
        refused = json.loads(next(each.result()[1] for each in answers if each.result()[0] == 503))
        assert refused["errors"][0]["extra"]["reason"] == "web_full"
        # The slots are free again.
        assert server.query("SELECT 2 AS two", library)[0] == 200


def test_samples_values_and_csv_are_bounded_recorded_and_leave_threads(prepared: Prepared, web: Web) -> None:
    dataset, quick = web("dataset", sql=HELD), web("dataset", sql="SELECT 8 AS one")
    before = len(recorded(prepared))
    with serving(prepared, web, 240) as server, ThreadPoolExecutor(21) as clients:
        asked: list[Callable[[int], tuple[int, str]]] = [server.samples, server.values, server.csv]
        for one in asked:
            with prepared.services.holding(f"SELECT pg_advisory_xact_lock({LOCK})", "analytics"):
                answers: list[Future[tuple[int, str]]] = [clients.submit(one, dataset) for _ in range(20)]
                answered(answers, 16)
                assert len(waiting(prepared)) <= 4
                assert server.ask("GET", "/health") == (200, "OK")
                assert server.ask("GET", "/api/v1/database/")[0] == 200
            found = sorted(each.result()[0] for each in answers)
            assert found == [200] * 4 + [503] * 16, (one.__name__, found, answers[0].result())
            assert one(quick)[0] == 200
        assert set(recorded(prepared)[before:]) == {"bob library success"}


def test_what_the_web_tier_executes_ends_at_its_limit(prepared: Prepared, web: Web, worker: Worker) -> None:
    """A chart's CSV in the database; a query of SQL Lab, which its worker executes, is stopped, and seen gone."""
    dataset, library = web("dataset", sql=HELD), number(prepared, "library")
    before = len(recorded(prepared))
    with (
        serving(prepared, web, 1) as server,
        prepared.services.holding(f"SELECT pg_advisory_xact_lock({LOCK})", "analytics"),
    ):
        for one in (server.samples, server.values, server.csv):
            status, text = one(dataset)
            # Superset tells no reason where filter values fail.
            told = one == server.values or "SQLLAB_TIMEOUT" in text
            assert (status >= 400, told) == (True, True), (one.__name__, status, text)
        assert recorded(prepared)[before:].count("bob library failed") == 3
        status, text = server.query(HELD, library)
        assert (status, "Run it asynchronously" in text) == (408, True), text
        until(lambda: not waiting(prepared), PATIENCE, "the statement is gone")
    last = prepared.services.sql("SELECT status FROM query ORDER BY id DESC LIMIT 1")
    assert last == "stopped"
