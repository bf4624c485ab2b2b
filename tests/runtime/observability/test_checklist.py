"""The lines of the checklist, met and missing, from what was seen of a system."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.broker.reserved_tasks import Reserved, Service
from runtime.observability import checklist
from runtime.observability.checklist import Busiest, Past, Server
from tests.runtime.stacks import topology

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
PLAN = topology("enterprise")
BROKER, CACHE = (instance.name for instance in PLAN.redis)
DAY = timedelta(days=1)
SEEN: dict[str, Any] = {
    "servers": [
        Server(BROKER, NOW - DAY, aof=True, peak_bytes=10, max_bytes=100, replicas=2, marked=NOW - 2 * DAY),
        Server(CACHE, NOW - DAY, aof=False, peak_bytes=10, max_bytes=100, replicas=2),
    ],
    "workers": [
        Reserved(f"{pool.name}@{n}", frozenset(), 0.0, Service(pool.queues, pool.concurrency))
        for pool in PLAN.pools
        for n in range(pool.min_workers)
    ],
    "past": Past(100, 1, 30.0, NOW - DAY, NOW),
    "busiest": Busiest(NOW - DAY, 50, 400, 0.5),
    "now": NOW,
}


def states(**changes: Any) -> dict[str, str]:
    return {line["id"]: line["state"] for line in checklist.report(PLAN, 50, **(SEEN | changes))}


def changed(index: int, **changes: Any) -> dict[str, Any]:
    servers = list(SEEN["servers"])
    servers[index] = replace(servers[index], **changes)
    return {"servers": servers}


def test_a_system_that_shows_everything() -> None:
    assert set(states().values()) == {"met"}
    assert len(states()) == 8


@pytest.mark.parametrize(
    ("id", "changes"),
    [
        ("broker-persistence", changed(0, aof=False)),
        ("broker-persistence", changed(0, marked=NOW)),
        ("broker-persistence", changed(0, marked=None)),
        ("workers", {"workers": SEEN["workers"][1:]}),
        (f"size-{CACHE}", changed(1, peak_bytes=90)),
        (f"size-{BROKER}", changed(0, max_bytes=0)),
        ("timeouts", {"past": Past(0, 0, 0.0, None, None)}),
        ("timeouts", {"past": Past(9, 0, 7200.0, NOW, NOW)}),
        ("load", {"busiest": Busiest(NOW, 49, 400, 0.5)}),
        ("load", {"busiest": None}),
        (f"failover-{BROKER}", changed(0, replicas=1)),
    ],
)
def test_what_is_not_shown_is_missing_and_nothing_else(id: str, changes: dict[str, Any]) -> None:
    assert [each for each, state in states(**changes).items() if state == "missing"] == [id]


def test_each_line_has_a_date_and_each_missing_one_a_way() -> None:
    for line in checklist.report(PLAN, 51, **SEEN):
        assert "2026-11-2" in line["evidence"], line
        assert bool(line["get"]) == (line["state"] == "missing"), line
