"""Every query is counted once, whatever becomes of its workers: submitted = completed + running + queued."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from redis import Redis

from tests.runtime.conftest import OPERATOR_PASSWORD, Prepared
from tests.runtime.queries.conftest import FINAL, Web, Worker
from tests.runtime.queries.test_counted_requests import Metrics
from tests.waiting import until
from topology import metric_names
from topology.model import RedisDatabase

pytestmark = [pytest.mark.superset, pytest.mark.further]

#: A queue of this test's own, as far as others have their workers listen to Bob's.
QUEUE = "tenant-a"
#: More than two workers execute at once, and as long that each kill meets some of them.
QUERIES, SECONDS = 16, 3
#: A lease of a killed worker's query ends, its message is put off and comes again.
PATIENCE = 240


def test_submitted_is_completed_running_and_queued_through_kills_and_restarts(prepared: Prepared, web: Web) -> None:
    metrics = Metrics(prepared)

    def counted(name: str) -> int:
        return int(metrics.value(name, queue=QUEUE))

    def unfinished() -> int:
        final = ", ".join(f"'{state}'" for state in FINAL)
        ids = ", ".join(map(str, queries))
        return int(prepared.services.sql(f"SELECT count(*) FROM query WHERE id IN ({ids}) AND status NOT IN ({final})"))

    def executing() -> int:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%of counting%' AND state = 'active' "
        return int(prepared.services.sql(f"{asked} AND pid <> pg_backend_pid()", database="postgres"))

    sent, ended = counted(metric_names.TASKS_SUBMITTED), counted(metric_names.TASKS_COMPLETED)
    first, second = (Worker(prepared, name, extra=(f"--queues={QUEUE}",)) for name in ("counting-a", "counting-b"))
    try:
        for worker in (first, second):
            worker.start()
        queries = [
            web.submit(f"SELECT slow({SECONDS}), 'of counting {number}'", "library", queue=QUEUE)
            for number in range(QUERIES)
        ]
        assert counted(metric_names.TASKS_SUBMITTED) - sent == QUERIES
        until(lambda: executing() == 4, PATIENCE, "both workers are at work")
        os.kill(first.children()[0].pid, signal.SIGKILL)
        until(lambda: counted(metric_names.TASKS_COMPLETED) - ended >= 3, PATIENCE, "some have ended")
        until(lambda: executing() >= 3, PATIENCE, "both workers are at work again")
        first.kill()
        # A restart: it ends what it executes, and gives back what it only holds.
        second.stop()
        completed = counted(metric_names.TASKS_COMPLETED) - ended
        assert 3 <= completed < QUERIES
        # Nothing runs; what has not ended is unfinished, and has a message.
        assert completed + unfinished() == QUERIES
        assert messages(prepared) >= unfinished()
        # As the reaper does where the one that had them is gone.
        web("restore")
        second.start()
        until(lambda: unfinished() == 0, PATIENCE, "every query ends")
        until(lambda: counted(metric_names.TASKS_COMPLETED) - ended == QUERIES, PATIENCE, "every query is counted")
        until(lambda: messages(prepared) == 0, PATIENCE, "no message is left")
        assert counted(metric_names.TASKS_SUBMITTED) - sent == counted(metric_names.TASKS_COMPLETED) - ended == QUERIES
    finally:
        for worker in (first, second):
            if hasattr(worker, "process"):
                worker.stop()


def messages(prepared: Prepared) -> int:
    """What waits in the queue, what a worker has or had, and what waits until it is due."""
    topology = prepared.topology

    def client(database: RedisDatabase) -> Any:
        port = topology.instance(database.instance).port
        return Redis(port=port, db=database.number, username="operator", password=OPERATOR_PASSWORD)

    with client(topology.database("broker")) as broker, client(topology.database("coordination")) as coordination:
        return broker.llen(QUEUE) + broker.hlen("unacked") + coordination.hlen("coordination:delayed:messages")
