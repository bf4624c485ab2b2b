"""The table of executions: one row for each time that a worker began a query, the same for SQL Lab and charts.

It is the fence (a second delivery finds the first one's row), and what usage and cost are reported from. Rows live in the
metadata database, so they survive Redis; beat prunes them with Superset's own old queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.environment.metadata_database import Connection

TABLE = "superset_async_executions"

#: sql: a query of SQL Lab, `subject` is its id. chart: a chart's asynchronous job, `subject` is the job's id. request: what a
#: request of the web tier executed itself.
Kind = Literal["sql", "chart", "request"]
#: None (NULL) while it runs. `lost`: its worker or message was gone, and it was not finished. `retried`: another attempt follows.
Outcome = Literal["success", "failed", "stopped", "timed_out", "lost", "refused", "retried"]

#: Status and reason under which each outcome that is an end is counted. A query that was stopped has not failed.
STATUSES: dict[Outcome, tuple[str, str]] = {
    "success": ("success", ""),
    "failed": ("failure", "error"),
    "timed_out": ("failure", "timed_out"),
    "lost": ("failure", "lost"),
    "stopped": ("stopped", ""),
}

#: An attempt that has no end, when a newer one (or its end from outside) is written.
_OPEN = "kind = %s AND subject = %s AND ended_at IS NULL"


@dataclass(frozen=True)
class Execution:
    """What is executed, and for whom. `submitted_at`: seconds since the epoch, None where it is not known."""

    kind: Kind
    subject: str
    task_id: str
    tenant: str
    queue: str
    username: str
    database_name: str
    writes: bool
    worker: str
    submitted_at: float | None


@dataclass(frozen=True)
class Attempt:
    """The last attempt to execute a subject. `outcome` is None while it has not ended."""

    number: int
    outcome: Outcome | None
    writes: bool


def last(connection: Connection, kind: Kind, subject: str) -> Attempt | None:
    """The last attempt, None where there was none. `connection` is SQLAlchemy's, to the metadata database, here and below."""
    row = connection.exec_driver_sql(
        f"SELECT attempt, outcome, writes FROM {TABLE} WHERE kind = %s AND subject = %s ORDER BY attempt DESC LIMIT 1",
        (kind, subject),
    ).fetchone()
    return Attempt(*row) if row else None


def begin(connection: Connection, execution: Execution, attempt: int) -> bool:
    """Write that `attempt` runs; what ran before it is `lost`. False where another has written this attempt: nothing changes."""
    done = connection.exec_driver_sql(
        f"INSERT INTO {TABLE} (kind, subject, attempt, task_id, tenant, queue, username, database_name, writes, worker, "
        "submitted_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s)) ON CONFLICT DO NOTHING",
        (
            execution.kind,
            execution.subject,
            attempt,
            execution.task_id,
            execution.tenant,
            execution.queue,
            execution.username,
            execution.database_name,
            execution.writes,
            execution.worker,
            execution.submitted_at,
        ),
    )
    if not done.rowcount:
        return False
    if attempt > 1:
        connection.exec_driver_sql(
            f"UPDATE {TABLE} SET ended_at = now(), outcome = 'lost' WHERE {_OPEN} AND attempt < %s",
            (execution.kind, execution.subject, attempt),
        )
    return True


def end(connection: Connection, kind: Kind, subject: str, outcome: Outcome, attempt: int | None = None) -> bool:
    """Write how `attempt` ended, or, for whoever knows that no process executes it, the one that runs; False where none does.

    For `runtime.queries.final_states`, which ends the query with it.
    """
    only, which = ("", ()) if attempt is None else (" AND attempt = %s", (attempt,))
    done = connection.exec_driver_sql(
        f"UPDATE {TABLE} SET ended_at = now(), outcome = %s WHERE {_OPEN}{only}", (outcome, kind, subject, *which)
    )
    return bool(done.rowcount)


def write_ended(connection: Connection, execution: Execution, outcome: Outcome) -> None:
    """Write what ran from its `submitted_at` until now, and was not written when it began."""
    connection.exec_driver_sql(
        f"INSERT INTO {TABLE} (kind, subject, attempt, task_id, tenant, queue, username, database_name, writes, worker, "
        "submitted_at, started_at, ended_at, outcome) VALUES (%s, %s, 1, %s, %s, %s, %s, %s, %s, %s, "
        "to_timestamp(%s), to_timestamp(%s), greatest(clock_timestamp(), to_timestamp(%s)), %s)",
        (
            execution.kind,
            execution.subject,
            execution.task_id,
            execution.tenant,
            execution.queue,
            execution.username,
            execution.database_name,
            execution.writes,
            execution.worker,
            *[execution.submitted_at] * 3,
            outcome,
        ),
    )


def prune(connection: Connection, days: int) -> int:
    """Delete the rows that began more than `days` ago and have ended; how many."""
    done = connection.exec_driver_sql(
        f"DELETE FROM {TABLE} WHERE started_at < now() - make_interval(days => %s) AND ended_at IS NOT NULL", (days,)
    )
    return int(done.rowcount)
