"""What is counted of tasks: how each ended, how long it took and how long it had waited, as histograms."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, signals

from runtime.observability import task_metrics
from runtime.observability.task_metrics import increments, outcome, wait_increments
from runtime.queries.executions import STATUSES, Outcome
from tests.runtime.stacks import topology
from topology import metric_names
from topology.histograms import WAIT_BUCKETS, task_buckets


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


@pytest.mark.parametrize(
    ("seconds", "bounds"), [(0.05, 12), (0.1, 12), (0.7, 10), (60.0, 6), (61.0, 5), (700.0, 2), (1300.0, 1)]
)
def test_a_task_is_in_every_bucket_whose_bound_it_keeps(seconds: float, bounds: int) -> None:
    of_stack = task_buckets(topology("multi-tenant").longest_time_limit)
    added = increments("sql_lab.get_sql_results", "acme", "acme", "success", seconds, bounds=of_stack)
    labels = {"task_name": "sql_lab.get_sql_results", "queue": "acme", "tenant": "acme"}
    assert added[0] == ("celery_task_completed_total", 1, {**labels, "status": "success", "reason": ""})
    buckets = [labels["le"] for name, by, labels in added if name == "celery_task_duration_seconds_bucket" and by == 1]
    every = ["0.1", "0.5", "1", "5", "10", "30", "60", "120", "300", "600", "1200", "+Inf"]
    assert buckets == every[-bounds:]
    assert added[-2:] == [
        ("celery_task_duration_seconds_sum", seconds, labels),
        ("celery_task_duration_seconds_count", 1, labels),
    ]


@pytest.mark.parametrize("ended", STATUSES)
def test_every_bad_end_is_a_failure_as_celery_calls_it(ended: Outcome) -> None:
    _, _, labels = increments("t", "default", "none", ended, 1.0)[0]
    assert labels["status"] == ("failure" if ended in ("failed", "timed_out", "lost") else ended)
    assert bool(labels["reason"]) is (labels["status"] == "failure")


@pytest.mark.parametrize("limit", [60, 599, 600, 601, 21_600, 80_000])
def test_the_longest_task_is_below_a_bound(limit: int) -> None:
    assert task_buckets(limit)[-1] > limit
    assert list(task_buckets(limit)) == sorted(set(task_buckets(limit)))


def test_a_wait_is_never_below_zero_and_a_second_delivery_is_counted() -> None:
    ahead = wait_increments("acme", "acme", -0.4, redelivered=False)
    labels = {"queue": "acme", "tenant": "acme"}
    assert (f"{metric_names.WAIT_SECONDS}_sum", 0.0, labels) in ahead
    assert len(ahead) == len(WAIT_BUCKETS) + 3
    late = wait_increments("acme", "acme", 4000.0, redelivered=True)
    assert [one for one in late if one[0].endswith("_bucket")] == [
        (f"{metric_names.WAIT_SECONDS}_bucket", 1, {**labels, "le": "+Inf"})
    ]
    assert late[-1] == (metric_names.REDELIVERED, 1, {"queue": "acme"})


def test_every_message_says_when_it_was_sent_and_a_second_sending_says_so_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("test", broker="memory://")
    signals.before_task_publish.connect(task_metrics._stamp, dispatch_uid="test")
    try:
        with app.connection_for_write() as connection:
            for now in (1000.0, 2000.5):
                monkeypatch.setattr(task_metrics.time, "time", lambda now=now: now)
                # As a message that was put off comes: with the headers of its first sending.
                sent = {metric_names.SENT_HEADER: "1000.000"} if now > 1500 else {}
                app.send_task("t", headers=sent, ignore_result=True, connection=connection)
            channel = connection.default_channel
            found = [channel.basic_get("celery", no_ack=True).headers[metric_names.SENT_HEADER] for _ in range(2)]
    finally:
        signals.before_task_publish.disconnect(dispatch_uid="test")
    assert found == ["1000.000", "2000.500"]
