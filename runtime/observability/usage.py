"""What queries cost: executions of SQL Lab and charts, by tenant, user or database, priced with the stack's rates.

A worker costs the same at rest and at work, so each execution costs its share of a worker for as long as it ran: one of the
pool's `concurrency` children. Redis costs what it costs, shared by the number of executions. What reserved workers
(`min_workers`) of a tenant cost all the same stands beside that.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from runtime.queries.executions import TABLE
from topology.model import Pool, Topology

By = Literal["tenant", "user", "database"]
BY: tuple[str, ...] = get_args(By)
COLUMNS: Mapping[str, str] = {"tenant": "tenant", "user": "username", "database": "database_name"}
#: How an execution ended that did not give a result. One that somebody stopped is no failure.
FAILED = ("failed", "timed_out", "lost", "refused")
HOUR = 3600.0
#: Hours of a day.
DAY = 24.0
#: What the row of queries without a name is called.
NOBODY = "(none)"


def statement(by: By) -> str:
    """SQL for `Used` rows of executions that were at work between the parameters `since` and `until` (UTC).

    Of one that began before or goes on after, the part in between counts. Attempts of one query are executions of their own.
    """
    column = COLUMNS[by]
    failed = ", ".join(f"'{outcome}'" for outcome in FAILED)
    return f"""
SELECT {column} AS name, queue, count(*) AS queries,
       count(*) FILTER (WHERE outcome IN ({failed})) AS failed,
       coalesce(sum(extract(epoch FROM least(coalesce(ended_at, :until), :until) - greatest(started_at, :since))), 0)
FROM {TABLE}
WHERE started_at < :until AND coalesce(ended_at, :until) > :since
GROUP BY {column}, queue
"""


@dataclass(frozen=True)
class Used:
    """Executions of one name in one queue, and the seconds that they took."""

    name: str
    queue: str
    queries: int
    failed: int
    seconds: float


#: When the first query began that is known: rows go after a while.
FIRST = f"SELECT min(started_at) FROM {TABLE}"


def windows(hours: float, now: datetime) -> tuple[tuple[datetime, datetime], tuple[datetime, datetime]]:
    """The last `hours`, and this month until now, in UTC."""
    now = now.astimezone(UTC)
    return (now - timedelta(hours=hours), now), (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0), now)


def report(
    topology: Topology,
    by: By,
    hours: float,
    *,
    used: Sequence[Used],
    month: Sequence[Used],
    now: datetime,
    first: datetime | None = None,
) -> dict[str, Any]:
    """The report as data: a row for each name, the dearest first, and their sum; money in `currency`.

    `used` is of the last `hours`, `month` of this month until now. By tenant there are also the budget, what is left of it,
    the month's cost as it will be at its end if it goes on like this, and the cost of reserved workers; every tenant has a
    row, used or not. `first` is when the first query began that is known: nothing has cost anything before it (None: longer
    ago), and a month is projected from a day at least.
    """
    now = now.astimezone(UTC)
    age = (now - first).total_seconds() / HOUR if first else float("inf")
    asked, hours = hours, min(hours, max(age, 1 / HOUR))
    costs = _costs(topology, used, hours)
    month_hours = min(max((now - windows(1, now)[1][0]).total_seconds() / HOUR, 1 / HOUR), max(age, 1 / HOUR))
    of_month = _costs(topology, month, month_hours)
    names = {*costs, *(tenant.id for tenant in topology.tenants if by == "tenant")}
    whole = sum(cost["cost"] for cost in costs.values())
    rows: list[dict[str, Any]] = []
    for name in names:
        row = dict(costs.get(name) or _nothing())
        row["share_percent"] = 100 * row["cost"] / whole if whole else 0.0
        row["cost_per_query"] = row["cost"] / row["queries"] if row["queries"] else None
        if by == "tenant":
            to_date = of_month.get(name, _nothing())["cost"]
            row |= _reserved(topology, name, row["worker_cost"], hours)
            row |= _budget(topology, name, to_date, to_date / month_hours if age >= DAY else None, now)
        rows.append({by: name or NOBODY} | row)
    rows.sort(key=lambda row: (-row["cost"], str(row[by])))
    total = {
        key: sum(row[key] for row in rows) for key in ("queries", "failed", "seconds", "worker_cost", "redis_cost", "cost")
    }
    return {
        "by": by,
        "hours": asked,
        "counted_hours": hours,
        "currency": topology.rates.currency,
        "rows": rows,
        "total": total,
    }


def worker_cost(topology: Topology, queue: str, seconds: float) -> float:
    """What an execution in `queue` costs that took `seconds`: its share of a worker for as long as it ran."""
    # A queue that is gone was served by the pool of the default one, as far as anybody knows now.
    pools = {name: pool for pool in topology.pools for name in pool.queues}
    pool = pools.get(queue, pools[topology.celery.default_queue])
    return seconds / (pool.concurrency * HOUR) * topology.rates.worker_hour


def _nothing() -> dict[str, Any]:
    return {"queries": 0, "failed": 0, "seconds": 0.0, "worker_cost": 0.0, "redis_cost": 0.0, "cost": 0.0}


def _costs(topology: Topology, used: Sequence[Used], hours: float) -> dict[str, dict[str, Any]]:
    executions = sum(each.queries for each in used)
    redis = topology.rates.redis_hour * hours
    found: dict[str, dict[str, Any]] = {}
    for each in used:
        row = found.setdefault(each.name, _nothing())
        worker = worker_cost(topology, each.queue, each.seconds)
        share = redis * each.queries / executions if executions else 0.0
        row["queries"] += each.queries
        row["failed"] += each.failed
        row["seconds"] += each.seconds
        row["worker_cost"] += worker
        row["redis_cost"] += share
        row["cost"] += worker + share
    return found


def _reserved(topology: Topology, name: str, worker_cost: float, hours: float) -> dict[str, Any]:
    pool: Pool | None = next((each for each in topology.pools if name and each.tenant == name), None)
    reserved = pool.min_workers * hours * topology.rates.worker_hour if pool else None
    return {"reserved_cost": reserved, "reserved_used_percent": 100 * worker_cost / reserved if reserved else None}


def _budget(topology: Topology, name: str, to_date: float, an_hour: float | None, now: datetime) -> dict[str, Any]:
    budget = next((tenant.monthly_budget for tenant in topology.tenants if tenant.id == name), None)
    days = calendar.monthrange(now.year, now.month)[1]
    return {
        "month_to_date": to_date,
        "month_projected": None if an_hour is None else an_hour * days * 24,
        "budget": budget,
        "budget_left": None if budget is None else budget - to_date,
    }
