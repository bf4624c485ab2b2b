"""What queries cost: the arithmetic, and the statement on a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.observability.usage import NOBODY, Used, report, statement, windows
from runtime.queries.executions import TABLE
from tests.runtime.conftest import Prepared
from tests.runtime.stacks import topology

#: Ten days into a month of thirty.
NOW = datetime(2026, 11, 11, tzinfo=UTC)
HOUR = 3600.0
PLAN = topology(
    "multi-tenant",
    tenants={
        "acme": {"users": ["ann"], "concurrency": 2, "min_workers": 1, "monthly_budget": 500},
        "bolt": {"users": ["bob"], "pool": "shared"},
        "idle": {"users": ["ida"], "min_workers": 2},
    },
    rates={"worker_hour": 0.5, "redis_hour": 0.1, "currency": "EUR"},
)
#: acme's worker has 2 children, the pool of bolt 4: an hour of work is 0.25 and 0.125.
USED = [Used("acme", "acme", 60, 5, 4 * HOUR), Used("bolt", "bolt", 30, 0, 8 * HOUR), Used("", "default", 10, 1, 0.0)]


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row[found["by"]]: row for row in found["rows"]}


def test_each_pays_its_share_of_workers_and_redis() -> None:
    found = report(PLAN, "tenant", 10, used=USED, month=USED, now=NOW)
    rows = by_name(found)
    assert list(rows) == ["acme", "bolt", NOBODY, "idle"]
    acme = rows["acme"]
    assert (acme["queries"], acme["failed"], acme["seconds"]) == (60, 5, 14400)
    assert acme["worker_cost"] == pytest.approx(4 / 2 * 0.5)
    # Redis costs 1.00 in ten hours, and 60 of 100 executions were acme's.
    assert acme["redis_cost"] == pytest.approx(0.6)
    assert rows["bolt"]["worker_cost"] == pytest.approx(8 / 4 * 0.5)
    assert acme["cost_per_query"] == pytest.approx(1.6 / 60)
    assert rows["idle"]["cost_per_query"] is None
    assert sum(row["share_percent"] for row in rows.values()) == pytest.approx(100)
    assert found["total"]["cost"] == pytest.approx(1 + 1 + 1.0)
    assert found["currency"] == "EUR"


def test_reserved_workers_cost_whether_used_or_not() -> None:
    rows = by_name(report(PLAN, "tenant", 10, used=USED, month=[], now=NOW))
    assert rows["acme"]["reserved_cost"] == pytest.approx(10 * 0.5)
    assert rows["acme"]["reserved_used_percent"] == pytest.approx(20)
    assert (rows["idle"]["reserved_cost"], rows["idle"]["reserved_used_percent"]) == (10, 0)
    assert rows["bolt"]["reserved_cost"] is rows[NOBODY]["reserved_cost"] is None


def test_a_budget_is_of_the_month_and_goes_on_as_it_began() -> None:
    month = [Used("acme", "acme", 100, 0, 800 * HOUR)]
    acme = by_name(report(PLAN, "tenant", 24, used=[], month=month, now=NOW))["acme"]
    to_date = 200 + 240 * 0.1
    assert acme["month_to_date"] == pytest.approx(to_date)
    assert acme["month_projected"] == pytest.approx(3 * to_date)
    assert acme["budget_left"] == pytest.approx(500 - to_date)


def test_nothing_has_cost_anything_before_the_first_query() -> None:
    """A platform of three minutes: three minutes of Redis, and no projection."""
    used = [Used("acme", "acme", 1, 0, 60)]
    found = report(PLAN, "tenant", 24, used=used, month=used, now=NOW, first=NOW - timedelta(minutes=3))
    acme = by_name(found)["acme"]
    assert acme["redis_cost"] == pytest.approx(0.1 * 3 / 60)
    assert acme["month_to_date"] == pytest.approx(acme["cost"])
    assert acme["month_projected"] is None
    assert (found["hours"], found["counted_hours"]) == (24, pytest.approx(0.05))


def test_a_queue_that_is_gone_costs_as_the_default_pool() -> None:
    found = report(PLAN, "user", 1, used=[Used("eve", "removed", 1, 0, HOUR)], month=[], now=NOW)
    assert found["rows"][0]["worker_cost"] == pytest.approx(0.5 / 4)
    assert "budget" not in found["rows"][0]


def test_nothing_used_is_no_error() -> None:
    assert report(topology("minimal"), "database", 24, used=[], month=[], now=NOW)["rows"] == []


def test_the_month_begins_in_utc() -> None:
    since, until = windows(24, NOW + timedelta(hours=3))[1]
    assert (since, until) == (datetime(2026, 11, 1, tzinfo=UTC), NOW + timedelta(hours=3))


#: Of the hour before NOW: tenant, queue, user, database, begins and ends in minutes before NOW, outcome.
EXECUTIONS: list[tuple[str, str, str, str, int, int | None, str | None]] = [
    ("acme", "acme", "ann", "sales", 30, 20, "success"),
    # Began before the hour: 10 minutes of it count.
    ("acme", "acme", "amy", "sales", 100, 50, "failed"),
    ("acme", "priority", "ann", "events", 10, 9, "timed_out"),
    ("", "default", "eve", "sales", 5, None, None),
    ("", "default", "eve", "sales", 3, 2, "stopped"),
    ("bolt", "bolt", "bob", "sales", 300, 200, "success"),
    ("bolt", "bolt", "bob", "sales", -5, None, None),
]


@pytest.mark.superset
@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("tenant", {"|default|2|0|360", "acme|acme|2|1|1200", "acme|priority|1|1|60"}),
        ("user", {"ann|acme|1|0|600", "amy|acme|1|1|600", "ann|priority|1|1|60", "eve|default|2|0|360"}),
        ("database", {"sales|acme|2|1|1200", "events|priority|1|1|60", "sales|default|2|0|360"}),
    ],
)
def test_executions_are_added_up_as_far_as_they_lie_in_the_hour(prepared: Prepared, by: Any, expected: set[str]) -> None:
    def moment(minutes: int | None) -> str:
        return "NULL" if minutes is None else f"'{(NOW - timedelta(minutes=minutes)).isoformat()}'"

    rows = ", ".join(
        f"('sql', '{number}', 1, 't', '{tenant}', '{queue}', '{user}', '{database}', 'w', {moment(begins)}, {moment(ends)}, "
        + ("NULL)" if outcome is None else f"'{outcome}')")
        for number, (tenant, queue, user, database, begins, ends, outcome) in enumerate(EXECUTIONS)
    )
    columns = (
        "kind, subject, attempt, task_id, tenant, queue, username, database_name, worker, started_at, ended_at, outcome"
    )
    asked = statement(by).replace(":until", moment(0) + "::timestamptz").replace(":since", moment(60) + "::timestamptz")
    temporary = f"CREATE TEMPORARY TABLE {TABLE} (LIKE public.{TABLE} INCLUDING DEFAULTS);"
    said = prepared.services.sql(f"{temporary} INSERT INTO {TABLE} ({columns}) VALUES {rows}; {asked};")
    found = {line.rpartition("|")[0] + f"|{float(line.rpartition('|')[2]):g}" for line in said.splitlines()}
    assert found == expected
