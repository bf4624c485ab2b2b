"""What an operator is told of queues, workers and open queries, from what was read of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from runtime.broker.reserved_tasks import Reserved, Service
from runtime.observability import live
from runtime.observability.exporter import Reading
from runtime.observability.live import Open, Recent
from tests.runtime.stacks import topology

PLAN = topology("multi-tenant", tenants={"acme": {"users": ["ann"], "concurrency": 2, "min_workers": 1}})
RUNNING = Open("sql", "7", "running", "acme", "acme", "ann", "sales", 9.0, "acme@one")
WAITING = Open("sql", "8", "waiting", "acme", "acme", "ann", "sales", 5.0)
CHART = Open("chart", "c-1", "waiting", "acme", "acme", "", "", 3.0)
LATER = replace(WAITING, id="9", seconds=1.0)
WORK = [LATER, RUNNING, CHART, WAITING]
ACME = Reserved("acme@one", frozenset({"sql-7"}), 0.0, Service(("acme",), 2))
REST = Reserved("default@two", frozenset(), 0.0, Service(("default", "priority"), 4))


def reading(**waiting: int) -> Reading:
    queues = PLAN.celery.queues
    counts = dict.fromkeys(queues, 0) | waiting
    return Reading(counts, dict.fromkeys(queues, 0), dict.fromkeys(queues, 0.0), dict.fromkeys(waiting, 5.0))


def row(queue: str, workers: Sequence[Reserved], *recent: Recent, **waiting: int) -> dict[str, object]:
    rows = live.queues(PLAN, reading(**waiting), workers, WORK, recent)
    assert [each["queue"] for each in rows] == list(PLAN.celery.queues)
    return next(each for each in rows if each["queue"] == queue)


def test_a_queue_says_who_waits_and_how_long_the_next_one_will() -> None:
    found = row("acme", [ACME, REST], Recent("acme", 10, 4.0), acme=3)
    assert (found["waiting"], found["workers"], found["slots"], found["oldest_seconds"]) == (3, 1, 2, 5.0)
    assert found["expected_wait_seconds"] == 3 * 4.0 / 2
    assert found["waiting_users"] == {"ann": 2, "(guest)": 1}
    assert found["problem"] is None


@pytest.mark.parametrize(
    ("workers", "recent", "waiting", "expected"),
    [
        ([ACME], [], 0, 0.0),
        ([ACME], [], 2, None),
        ([], [Recent("acme", 10, 4.0)], 2, None),
        ([], [], 0, None),
    ],
    ids=["empty", "nothing ended lately", "no worker", "no worker, and empty"],
)
def test_a_wait_that_nobody_knows_is_not_told(
    workers: list[Reserved], recent: list[Recent], waiting: int, expected: float | None
) -> None:
    assert row("acme", workers, *recent, acme=waiting)["expected_wait_seconds"] == expected


@pytest.mark.parametrize(
    ("workers", "waiting", "problem"),
    [
        ([], 1, "no worker listens to it: is a worker of pool acme running?"),
        ([], 0, "0 of at least 1 workers listen to it"),
        ([replace(ACME, service=Service((), 2))], 1, "no worker listens to it: is a worker of pool acme running?"),
        ([ACME], PLAN.resilience.max_queued, "it is full: submissions are refused"),
        ([ACME], 5, None),
    ],
    ids=["waiting", "missing", "drained", "full", "right"],
)
def test_what_keeps_a_queue_from_being_worked_off(workers: list[Reserved], waiting: int, problem: str | None) -> None:
    assert row("acme", workers, acme=waiting)["problem"] == problem


def test_workers_by_name_with_what_they_run() -> None:
    drained = Reserved("acme@zero", frozenset(), 0.0, Service((), 2))
    draining = Reserved("acme@ten", frozenset({"x"}), 0.0, Service((), 2))
    rows = live.workers([REST, ACME, drained, draining], WORK)
    assert [(each["worker"], each["state"], each["queries"]) for each in rows] == [
        ("acme@one", "working", ["7"]),
        ("acme@ten", "draining", []),
        ("acme@zero", "drained", []),
        ("default@two", "idle", []),
    ]


def test_queries_that_run_come_first_and_then_those_that_wait_for_longest() -> None:
    assert [each["id"] for each in live.open_queries(WORK)] == ["7", "8", "c-1", "9"]


def test_a_waiting_query_has_a_place_and_no_other_has() -> None:
    rows = live.queues(PLAN, reading(acme=3), [ACME], WORK, [Recent("acme", 10, 4.0)])
    assert live.place(WORK, "9", rows) == {"queue": "acme", "before": 2, "expected_wait_seconds": 4.0}
    assert live.place(WORK, "8", rows) == {"queue": "acme", "before": 0, "expected_wait_seconds": 0.0}
    assert live.place(WORK, "7", rows) is None
    assert live.place(WORK, "c-1", rows) is None
