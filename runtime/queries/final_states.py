"""How executions end, and what the process that executes knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

from runtime.environment import metadata_database
from runtime.queries import executions, query_tasks
from runtime.queries.executions import Kind, Outcome
from runtime.queries.interfaces import OPEN_STATES, superset

#: How long the end of a query waits for its statement to be cancelled: a connection to its database, and its answer.
CANCEL_SECONDS = 5.0

#: Whether the browser of the chart that this process computes has been told how it ended (`runtime.superset.chart_events`
#: says so).
told: ContextVar[bool] = ContextVar("told", default=False)

#: Query id and number of the attempt that this process executes, of a query whose success is recorded with Superset's own last
#: commit, until that is done.
unended: ContextVar[tuple[int, int] | None] = ContextVar("unended", default=None)

#: The soft limit of the task that this process executes, in seconds.
limit: ContextVar[float] = ContextVar("limit", default=0.0)
#: How Celery's exception shows in the words that Superset makes of every exception.
TIMED_OUT = "SoftTimeLimitExceeded"
#: Begins what a user reads when the database ended a statement.
ENDED_BY_DATABASE = "The database ended this statement"


@dataclass(frozen=True)
class End:
    """How an attempt ended; with `message`, a query that is in one of `states` ends so, too."""

    outcome: Outcome
    message: str | None = None
    states: Sequence[str] = OPEN_STATES


def end(
    kind: Kind,
    subject: str,
    outcome: Outcome,
    message: str | None,
    *,
    attempt: int | None = None,
    states: Sequence[str] = OPEN_STATES,
) -> bool:
    """End an execution, and with `message` the query that it is of, in one transaction; whether it was open.

    `attempt` None: whichever runs. A chart has no row of Superset's: its browser is told by `interfaces.Ending.chart`. Raises
    SQLAlchemy's errors.
    """
    with metadata_database.transaction() as connection:
        return _end(connection, kind, subject, outcome, message, attempt=attempt, states=states)


def end_as_written(query_id: int, attempt: int, read: Callable[[str | None, str], End]) -> None:
    """End an attempt by what the row of its query says: `read` makes an end of its state and error. One transaction.

    Raises SQLAlchemy's errors.
    """
    with metadata_database.transaction() as connection:
        found = read(*superset().ending.state(connection, query_id))
        _end(connection, "sql", str(query_id), found.outcome, found.message, attempt=attempt, states=found.states)


def _end(
    connection: metadata_database.Connection,
    kind: Kind,
    subject: str,
    outcome: Outcome,
    message: str | None,
    *,
    attempt: int | None,
    states: Sequence[str],
) -> bool:
    ended = False
    if kind == "sql" and message is not None:
        ended = superset().ending.query(connection, int(subject), message, states=states)
    closed = executions.end(connection, kind, subject, outcome, attempt)
    return ended if kind == "sql" else closed


def end_lost(queries: Mapping[int, str]) -> dict[int, bool]:
    """End queries that no process executes as lost, each with its message, once their statements are cancelled; which were open.

    Where a statement was not seen gone, its user is told so. A database that does not answer within `CANCEL_SECONDS` holds nobody
    up: its statement ends by its own limit, and the query is ended here. Raises SQLAlchemy's errors.
    """
    seen = superset().ending.cancel(tuple(queries), CANCEL_SECONDS)
    return {
        query_id: end("sql", str(query_id), "lost", query_tasks.with_seen(message, seen[query_id]))
        for query_id, message in queries.items()
    }


def left_write(query_id: int) -> bool:
    """Whether the last attempt of a query may have written, and was left without an end: nobody may execute it again.

    Raises SQLAlchemy's errors.
    """
    with metadata_database.transaction() as connection:
        last = executions.last(connection, "sql", str(query_id))
    return last is not None and last.outcome is None and last.writes


def outcome(status: str | None, error: str) -> Outcome:
    """How a query ended, by the state and the error of its row."""
    if status == "failed" and any(sign in error for sign in (TIMED_OUT, "was killed after", ENDED_BY_DATABASE)):
        return "timed_out"
    if status in ("success", "failed", "stopped", "timed_out"):
        return cast(Outcome, status)
    return "lost"
