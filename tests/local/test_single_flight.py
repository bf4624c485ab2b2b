"""Users who ask for the same chart at the same time, on a running platform: the database executes it once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from client.errors import QueryFailedError
from client.session import Session, json_object
from client.superset_client import SupersetClient
from local import postgres
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from tests.local.conftest import RunningPlatform

pytestmark = pytest.mark.local

USERS = 16
#: Of one execution: less than the platform's statement timeout.
SECONDS = 2
#: Sessions are read-only, so that it cannot count its calls itself: the server's statistics do. Superset disallows pg_sleep.
COUNTED = """
CREATE TABLE pace AS SELECT 0 AS seconds;
CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql VOLATILE AS
$$ BEGIN PERFORM pg_sleep(seconds) FROM pace; RETURN 1; END $$;
"""


class Counted:
    """A dataset whose executions the database counts."""

    def __init__(self, platform: RunningPlatform) -> None:
        self._platform = platform
        self._topology = platform.topology
        # One log-in for all: their number is limited.
        password = platform.password_file.read_text().strip()
        login = {"username": platform.username, "password": password, "provider": "db", "refresh": False}
        answer = httpx.post(f"{platform.url}/api/v1/security/login", json=login, timeout=60, trust_env=False)
        self._token = str(answer.json()["access_token"])
        self.sql(COUNTED)
        self.sql(f"ALTER DATABASE {SAMPLE_DATABASE} SET track_functions = 'pl'", administrator=True)
        session = self.session()
        body = {
            "database": platform.database_id,
            "schema": "public",
            "table_name": "counted",
            "sql": "SELECT counted() AS value",
        }
        answer = session.call("POST", "/api/v1/dataset/", body=body)
        with session.shape(answer):
            self._dataset = int(json_object(answer)["id"])
        # Not before: to know its columns Superset has just executed it.
        self.sql(f"UPDATE pace SET seconds = {SECONDS}")

    def sql(self, script: str, *, administrator: bool = False) -> str:
        user, secret = ("postgres", "POSTGRES_ADMIN_PASSWORD") if administrator else (SAMPLE_ROLE, "SAMPLE_PASSWORD")
        return postgres.run_sql(self._topology, user, self._platform.secrets[secret], SAMPLE_DATABASE, script)

    def executions(self) -> int:
        """How often the dataset's SQL was executed. A session tells its calls when it ends: workers keep theirs, idle."""
        idle = f"datname = '{SAMPLE_DATABASE}' AND state LIKE 'idle%' AND pid <> pg_backend_pid()"
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {idle}", administrator=True)
        time.sleep(1.5)
        return int(self.sql("SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'counted'"))

    def session(self) -> Session:
        return Session(self._platform.url, None, None, self._token, 60)

    def chart(self, expression: str, kind: str) -> dict[str, Any]:
        """A request that workers compute (`full`) or the web tier does (`results`); cold, whatever was asked before."""
        metric = {"expressionType": "SQL", "sqlExpression": expression, "label": f"m{time.monotonic_ns()}"}
        return {
            "datasource": {"id": self._dataset, "type": "table"},
            "queries": [{"columns": [], "metrics": [metric], "row_limit": 10}],
            "result_format": "json",
            "result_type": kind,
        }

    def ask(self, payload: dict[str, Any], users: int) -> list[str]:
        """What each of `users` who ask at the same moment is told: the data as JSON, or the failure."""
        told: list[str] = []
        barrier = threading.Barrier(users)

        def asynchronous() -> str:
            with SupersetClient(self._platform.url, token=self._token) as client:
                client.login()
                barrier.wait()
                try:
                    return json.dumps(client.chart_data(payload).queries[0]["data"])
                except QueryFailedError as error:
                    return str(error).partition("failed: ")[2]

        def synchronous() -> str:
            session = self.session()
            session.login()
            barrier.wait()
            answer = json_object(session.call("POST", "/api/v1/chart/data", body=payload))
            session.close()
            return json.dumps(answer["result"][0]["data"]) if "result" in answer else str(answer.get("message") or answer)

        def user() -> None:
            told.append(asynchronous() if payload["result_type"] == "full" else synchronous())

        threads = [threading.Thread(target=user) for _ in range(users)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(180)
        return told


@pytest.fixture(scope="module")
def counted(platform: RunningPlatform) -> Iterator[Counted]:
    yield Counted(platform)


@pytest.mark.parametrize("kind", ["full", "results"])
def test_identical_cold_charts_are_executed_once(kind: str, counted: Counted) -> None:
    before = counted.executions()
    told = counted.ask(counted.chart("sum(value)", kind), USERS)
    assert counted.executions() - before == 1
    assert len(told) == USERS
    assert len(set(told)) == 1
    assert '": 1' in told[0]


@pytest.mark.parametrize("kind", ["full", "results"])
def test_a_failure_is_shared_by_who_waits_and_not_kept_for_the_next(kind: str, counted: Counted) -> None:
    """Fewer at once than the web tier has threads, so that all wait for the first one's."""
    payload = counted.chart("sum(value) / 0", kind)
    before = counted.executions()
    told = counted.ask(payload, 4)
    assert counted.executions() - before == 1
    assert len(told) == 4
    assert all("division by zero" in each for each in told), told
    assert "division by zero" in counted.ask(payload, 1)[0]
    assert counted.executions() - before == 2


def test_a_forced_refresh_shares_nothing(counted: Counted) -> None:
    before = counted.executions()
    counted.ask(counted.chart("sum(value)", "results") | {"force": True}, 3)
    assert counted.executions() - before == 3
