"""Which statements take most of the workers' time: executions of the last hours, grouped by what their SQL is without its values.

Pure: the executions, and a function that gives a text its fingerprint, are handed in.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from runtime.observability import usage
from runtime.queries.executions import TABLE
from topology.model import Topology

By = Literal["total", "mean", "p95", "max", "count", "cost"]
BY: tuple[str, ...] = get_args(By)
#: The key of a row by which each sorts.
KEYS: dict[By, str] = {
    "total": "total_seconds",
    "mean": "mean_seconds",
    "p95": "p95_seconds",
    "max": "max_seconds",
    "count": "executions",
    "cost": "cost",
}
#: The most executions that are read, newest first, and the most statements that are told of.
MOST_EXECUTIONS, MOST_ROWS = 100_000, 500
#: The statement of charts: their SQL is in no table.
CHARTS = "(charts)"
#: SQL of `Executed` rows that ended in the last :hours, without the texts.
EXECUTED = f"""
SELECT e.kind, e.subject, md5(coalesce(q.sql, '')), e.database_name, e.username, e.queue, e.outcome,
       extract(epoch FROM e.ended_at - e.started_at), coalesce(q.rows, 0)
FROM {TABLE} e LEFT JOIN query q ON e.kind = 'sql' AND q.id::text = e.subject
WHERE e.ended_at > now() - make_interval(secs => :hours * 3600)
ORDER BY e.ended_at DESC LIMIT {MOST_EXECUTIONS}
"""
#: SQL of the texts of the same: digest, text, and the engine of its database.
TEXTS = f"""
SELECT DISTINCT ON (md5(q.sql)) md5(q.sql), q.sql, d.sqlalchemy_uri
FROM {TABLE} e JOIN query q ON q.id::text = e.subject LEFT JOIN dbs d ON d.id = q.database_id
WHERE e.kind = 'sql' AND e.ended_at > now() - make_interval(secs => :hours * 3600)
"""


@dataclass(frozen=True)
class Executed:
    """An execution that has ended: of which text (its digest), where, for whom, how, in how many seconds, with how many rows."""

    kind: Literal["sql", "chart"]
    subject: str
    digest: str
    database: str
    username: str
    queue: str
    outcome: str
    seconds: float
    rows: int


def report(
    topology: Topology, by: By, hours: float, executed: Iterable[Executed], fingerprint: Callable[[str], str]
) -> dict[str, Any]:
    """A row for each statement of each database, those with most of `by` first. `fingerprint` is of a text's digest.

    Seconds are those of executions, each attempt one; rows those that succeeded gave. `slowest` is the id of the execution's
    query that took longest.
    """
    groups: dict[tuple[str, str], list[Executed]] = defaultdict(list)
    counted = 0
    for each in executed:
        counted += 1
        statement = CHARTS if each.kind == "chart" else fingerprint(each.digest)
        groups[each.database, statement].append(each)
    rows: list[dict[str, Any]] = [
        {"statement": statement, "database": database} | _row(topology, group)
        for (database, statement), group in groups.items()
    ]
    rows.sort(key=lambda row: (-row[KEYS[by]], row["database"], row["statement"]))
    return {
        "by": by,
        "hours": hours,
        "executions": counted,
        "complete": counted < MOST_EXECUTIONS,
        "currency": topology.rates.currency,
        "rows": rows[:MOST_ROWS],
    }


def _row(topology: Topology, group: Sequence[Executed]) -> dict[str, Any]:
    seconds = sorted(each.seconds for each in group)
    slowest = max(group, key=lambda each: each.seconds)
    return {
        "executions": len(group),
        "failed": sum(each.outcome in usage.FAILED for each in group),
        "mean_seconds": sum(seconds) / len(seconds),
        "p95_seconds": percentile(seconds, 95),
        "max_seconds": seconds[-1],
        "total_seconds": sum(seconds),
        "rows": sum(each.rows for each in group if each.outcome == "success"),
        "users": len({each.username for each in group}),
        "cost": sum(usage.worker_cost(topology, each.queue, each.seconds) for each in group),
        "slowest": slowest.subject,
    }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest rank: the least of `ordered` (not empty) that `percent` of them do not exceed."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
