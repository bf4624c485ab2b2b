"""What an operator sees and does while queries run and wait, on the real platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from client.states import QueryHandle, State
from client.superset_client import SupersetClient
from tests.local.conftest import RunningPlatform
from tests.local.test_query_e2e import ENDLESS, client_of
from tests.waiting import until

pytestmark = pytest.mark.local


@pytest.fixture
def client(platform: RunningPlatform) -> Iterator[SupersetClient]:
    with client_of(platform) as client:
        yield client


def told(platform: RunningPlatform, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = platform.run(*arguments, "--format", "json", "--stack", platform.stack, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_drill_a_drained_worker_ends_what_it_has_and_others_wait_until_it_resumes(
    platform: RunningPlatform, client: SupersetClient
) -> None:
    # What an earlier test has left may still run, and a worker says what it has every few seconds.
    until(lambda: told(platform, "worker", "list")[0]["state"] == "idle", 120, "the worker is idle")
    (worker,) = told(platform, "worker", "list")
    assert worker["queues"] == ["default"]
    (queue,) = told(platform, "queue")
    assert (queue["queue"], queue["waiting"], queue["workers"], queue["slots"]) == ("default", 0, 1, worker["slots"])
    # It ends at the statement timeout, well after the worker was asked to drain.
    running = client.submit(ENDLESS, platform.database_id)
    until(lambda: client.status(running.id).state is State.RUNNING, 60, "the query runs")
    try:
        platform.run("worker", "drain", worker["worker"], "--stack", platform.stack)
        until(lambda: told(platform, "worker", "list")[0]["queues"] == [], 60, "the worker takes no more")
        waiting = client.submit("SELECT 1 AS one", platform.database_id)
        stopped = client.submit("SELECT 2 AS two", platform.database_id)
        _stands_in_line(platform, client, waiting, stopped)
        platform.run("query", "stop", str(stopped.id), "--stack", platform.stack)
        assert client.status(stopped.id).state is State.STOPPED
        platform.run("worker", "drain", worker["worker"], "--wait", "--stack", platform.stack)
        assert client.status(running.id).state.final
        assert client.status(waiting.id).state is State.PENDING
    finally:
        # Also where this fails: others use the platform.
        platform.run("worker", "resume", worker["worker"], "--stack", platform.stack)
    assert client.wait(waiting).state is State.SUCCESS
    until(lambda: told(platform, "worker", "list")[0]["state"] == "idle", 60, "the worker is idle again")
    assert told(platform, "query", "list") == []
    assert client.operations.place(waiting.id) is None


def _stands_in_line(platform: RunningPlatform, client: SupersetClient, waiting: QueryHandle, stopped: QueryHandle) -> None:
    (queue,) = told(platform, "queue", code=12)
    assert queue["problem"].startswith("no worker listens to it")
    # A job of beat, which is nobody's, may stand there too.
    assert queue["waiting"] >= 2
    assert queue["waiting_users"] == {platform.username: 2}
    rows = told(platform, "query", "list")
    assert {row["id"]: row["state"] for row in rows if row["state"] == "waiting"} == {
        str(waiting.id): "waiting",
        str(stopped.id): "waiting",
    }
    place = client.operations.place(stopped.id)
    assert place
    assert (place["queue"], place["expected_wait_seconds"]) == ("default", None)
    assert place["before"] >= 1
