"""Executions by statement: counts, times, rows, users and cost of each."""

from __future__ import annotations

import pytest

from runtime.observability import slow, usage
from runtime.observability.slow import Executed
from tests.runtime.stacks import topology

PLAN = topology("minimal")
QUEUE = PLAN.celery.default_queue


def executed(subject: int, seconds: float, digest: str = "a", **more: object) -> Executed:
    given = {
        "kind": "sql",
        "database": "sales",
        "username": "ann",
        "queue": QUEUE,
        "outcome": "success",
        "rows": 10,
    } | more
    return Executed(subject=str(subject), digest=digest, seconds=seconds, **given)  # type: ignore[arg-type]


def test_statements_of_one_fingerprint_are_one_row() -> None:
    times = [1.0, 2.0, 3.0, 100.0]
    of_two_texts = [executed(n, seconds, "ab"[n % 2], username=f"u{n % 3}") for n, seconds in enumerate(times)]
    failed = executed(9, 4.0, outcome="timed_out", rows=99)
    (row,) = slow.report(PLAN, "total", 24, [*of_two_texts, failed], lambda _: "SELECT ?")["rows"]
    assert (row["executions"], row["failed"], row["users"], row["rows"]) == (5, 1, 4, 40)
    assert (row["mean_seconds"], row["p95_seconds"], row["max_seconds"], row["total_seconds"]) == (22.0, 100.0, 100.0, 110.0)
    assert row["slowest"] == "3"
    assert row["cost"] == pytest.approx(usage.worker_cost(PLAN, QUEUE, 110.0))


def test_databases_charts_and_statements_are_apart_and_sorted_by_what_is_asked() -> None:
    often = [executed(n, 1.0, "often") for n in range(5)]
    long = [executed(7, 3.0, "long"), executed(8, 3.0, "long", database="other")]
    charts = [executed(9, 4.0, kind="chart")]
    found = {
        by: [
            (row["database"], row["statement"])
            for row in slow.report(PLAN, by, 1, [*often, *long, *charts], str.upper)["rows"]
        ]
        for by in ("total", "count", "max")
    }
    assert found["total"] == [("sales", "OFTEN"), ("sales", slow.CHARTS), ("other", "LONG"), ("sales", "LONG")]
    assert found["count"][0] == ("sales", "OFTEN")
    assert found["max"][0] == ("sales", slow.CHARTS)


@pytest.mark.parametrize(("percent", "is_"), [(50, 10), (95, 19), (99, 20), (1, 1)])
def test_a_percentile_is_the_nearest_rank(percent: float, is_: int) -> None:
    assert slow.percentile(list(range(1, 21)), percent) == is_


def test_a_cost_is_the_share_of_a_worker() -> None:
    pool = PLAN.pool("default")
    whole = usage.worker_cost(PLAN, QUEUE, 3600 * pool.concurrency)
    assert whole == pytest.approx(PLAN.rates.worker_hour)
    assert usage.worker_cost(PLAN, "gone", 60) == usage.worker_cost(PLAN, QUEUE, 60)
