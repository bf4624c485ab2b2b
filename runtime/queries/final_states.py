"""How executions end, and what the process that executes knows of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import cast

from runtime.environment.metadata_database import Connection
from runtime.queries import executions, query_tasks
from runtime.queries.executions import Outcome
from runtime.queries.interfaces import superset

#: Whether the browser of the chart that this process computes has been told how it ended (`runtime.superset.chart_events`
#: says so).
told: ContextVar[bool] = ContextVar("told", default=False)

#: The soft limit of the task that this process executes, in seconds.
limit: ContextVar[float] = ContextVar("limit", default=0.0)
#: How Celery's exception shows in the words that Superset makes of every exception.
TIMED_OUT = "SoftTimeLimitExceeded"
#: Begins what a user reads when the database ended a statement.
ENDED_BY_DATABASE = "The database ended this statement"


def refuse_write(connection: Connection, query_id: int) -> bool:
    """End a query whose last attempt may have written and was left without an end, since nobody may execute it again.

    For whoever knows that no process executes it. False where it reads, or has ended.
    """
    last = executions.last(connection, "sql", str(query_id))
    if last is None or last.outcome is not None or not last.writes:
        return False
    superset().ending.query(connection, query_id, query_tasks.LOST_WRITE)
    return executions.end(connection, "sql", str(query_id), "lost")


def outcome(status: str | None, error: str) -> Outcome:
    """How a query ended, by the state and the error of its row."""
    if status == "failed" and any(sign in error for sign in (TIMED_OUT, "was killed after", ENDED_BY_DATABASE)):
        return "timed_out"
    if status in ("success", "failed", "stopped", "timed_out"):
        return cast(Outcome, status)
    return "lost"
