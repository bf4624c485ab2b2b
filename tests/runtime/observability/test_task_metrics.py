"""What is counted of tasks: how each ended, and a histogram that Prometheus can read."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.observability.task_metrics import increments, outcome


class SoftTimeLimitExceeded(Exception):
    """Named like Celery's."""


@pytest.mark.parametrize(
    ("state", "result", "ended"),
    [
        ("SUCCESS", None, "success"),
        ("SUCCESS", {"status": "success", "data": []}, "success"),
        ("SUCCESS", {"status": "failed", "error": "no such table"}, "failed"),
        ("SUCCESS", {"status": "stopped"}, "stopped"),
        ("SUCCESS", {"status": "timed_out"}, "timed_out"),
        ("SUCCESS", [1], "success"),
        ("FAILURE", ValueError("no"), "failed"),
        ("FAILURE", SoftTimeLimitExceeded(), "timed_out"),
        ("RETRY", None, None),
        ("REJECTED", None, None),
        ("", None, None),
    ],
)
def test_an_end_is_what_became_of_the_query_and_not_what_celery_calls_it(state: str, result: Any, ended: str | None) -> None:
    assert outcome(state, result) == ended


@pytest.mark.parametrize(("seconds", "bounds"), [(0.05, 8), (0.1, 8), (0.7, 6), (60.0, 2), (61.0, 1)])
def test_a_task_is_in_every_bucket_whose_bound_it_keeps(seconds: float, bounds: int) -> None:
    added = increments("sql_lab.get_sql_results", "acme", "acme", "success", seconds)
    labels = {"task_name": "sql_lab.get_sql_results", "queue": "acme", "tenant": "acme"}
    assert added[0] == ("celery_task_completed_total", 1, {**labels, "status": "success"})
    buckets = [labels["le"] for name, by, labels in added if name == "celery_task_duration_seconds_bucket" and by == 1]
    assert buckets == ["0.1", "0.5", "1", "5", "10", "30", "60", "+Inf"][-bounds:]
    assert added[-2:] == [
        ("celery_task_duration_seconds_sum", seconds, labels),
        ("celery_task_duration_seconds_count", 1, labels),
    ]
