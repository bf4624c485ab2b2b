"""A task that prunes keeps what the stack keeps, whatever it is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore

from runtime.queries import retention
from runtime.queries.retention import floor, kept_days
from tests.runtime.stacks import topology


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "runs"),
    [
        ("prune_query", (), {"retention_period_days": 90}, True),
        ("prune_query", (), {"retention_period_days": 365}, True),
        ("prune_query", (), {"retention_period_days": 89}, False),
        ("prune_query", (), {"retention_period_days": 0}, False),
        ("prune_query", (0,), {}, False),
        ("prune_query", (-1,), {}, False),
        ("prune_query", (), {}, False),
        ("prune_query", (), {"retention_period_days": True}, False),
        ("prune_query", (), {"retention_period_days": "90"}, False),
        ("prune_query", (), {"retention_period_days": float("nan")}, False),
        ("prune_logs", (), {"retention_period_days": 0, "max_rows_per_run": 10**9}, False),
        ("prune_logs", (90, 10), {}, True),
        ("superset_async.prune_executions", (0,), {}, False),
        ("superset_async.prune_executions", (90,), {}, True),
        # The stack's schedule has none of these.
        ("prune_tasks", (0,), {}, False),
        ("prune_tasks", (1,), {}, True),
    ],
)
def test_no_message_empties_a_table(
    task: str, args: tuple[Any, ...], kwargs: dict[str, Any], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(retention.process_topology, "started", lambda: topology("enterprise"))
    monkeypatch.setattr(retention.counters, "count", lambda name, **labels: counted.append(labels["where"]))
    ran: list[Any] = []
    prune = kept_days(lambda self, *args, **kwargs: ran.append((args, kwargs)))
    if runs:
        prune(SimpleNamespace(name=task), *args, **kwargs)
        assert (ran, counted) == ([(args, kwargs)], [])
    else:
        with pytest.raises(Ignore):
            prune(SimpleNamespace(name=task), *args, **kwargs)
        assert (ran, counted) == ([], ["retention"])


def test_the_floor_is_what_the_stack_keeps() -> None:
    short = topology("enterprise", maintenance={"query_retention_days": 7, "log_retention_days": None})
    assert [floor(short, task) for task in retention.PRUNE_TASKS] == [7, 1, 1, 7]
