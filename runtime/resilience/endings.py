"""The two ways to end what no process will finish: a query's row, and a chart's event. Each says to the user what happened.

Both lean on Superset 6.1's own tables and events; nothing else in this project writes them from outside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict
from importlib import import_module
from typing import Any, Literal

from runtime import executions
from runtime.resilience import work

#: The states of a query that has not ended; all others are final.
OPEN_STATES = ("pending", "running", "scheduled", "fetching")

#: Whether the browser of the chart that this process computes has been told how it ended (`runtime.events` says so).
told: ContextVar[bool] = ContextVar("told", default=False)

#: The soft limit of the task that this process executes, in seconds.
limit: ContextVar[float] = ContextVar("limit", default=0.0)
#: How Celery's exception shows in the words that Superset makes of every exception.
TIMED_OUT = "SoftTimeLimitExceeded"

ErrorType = Literal["ASYNC_WORKERS_ERROR", "RESULTS_BACKEND_ERROR", "GENERIC_BACKEND_ERROR"]


def end_query(
    connection: Any,
    query_id: int,
    message: str,
    error_type: ErrorType = "ASYNC_WORKERS_ERROR",
    states: Sequence[str] = OPEN_STATES,
) -> bool:
    """Make a query in one of `states` `failed`, with `message`; False where it is in another, or is none.

    `connection` is SQLAlchemy's, to the metadata database; the caller commits. Superset's pages show the state `failed`
    only (not `timed_out`) with its message, and poll by `changed_on`.
    """
    done = connection.exec_driver_sql(
        "UPDATE query SET status = 'failed', error_message = %s, end_time = %s, tmp_table_name = NULL, "
        "changed_on = timezone('utc', now()), extra_json = "
        "(COALESCE(NULLIF(extra_json, ''), '{}')::jsonb || jsonb_build_object('errors', %s::jsonb))::text "
        "WHERE id = %s AND status = ANY(%s)",
        (message, time.time() * 1000, json.dumps([_error(message, error_type)]), query_id, list(states)),
    )
    return bool(done.rowcount)


def refuse_write(connection: Any, query_id: int) -> bool:
    """End a query whose last attempt may have written and was left without an end, since nobody may execute it again.

    For whoever knows that no process executes it. False where it reads, or has ended.
    """
    last = executions.last(connection, "sql", str(query_id))
    if last is None or last.outcome is not None or not last.writes:
        return False
    end_query(connection, query_id, work.LOST_WRITE)
    return executions.end(connection, "sql", str(query_id), "lost")


def wait_again(connection: Any, query_id: int) -> bool:
    """Make a running query `pending`, since it will be executed again; False where it does not run any more."""
    done = connection.exec_driver_sql(
        "UPDATE query SET status = 'pending', start_running_time = NULL, changed_on = timezone('utc', now()) "
        "WHERE id = %s AND status = 'running'",
        (query_id,),
    )
    return bool(done.rowcount)


def state_of(connection: Any, query_id: int) -> tuple[str | None, str]:
    """The state and the error of a query; None and nothing for one that is not there."""
    row = connection.exec_driver_sql(
        "SELECT status, COALESCE(error_message, '') FROM query WHERE id = %s", (query_id,)
    ).fetchone()
    return (str(row[0]), str(row[1])) if row else (None, "")


def end_chart(job: Mapping[str, Any], message: str, error_type: ErrorType = "ASYNC_WORKERS_ERROR") -> None:
    """Tell the browser that waits for chart `job` (Superset's job_metadata) that it failed. Raises redis-py's errors."""
    manager = import_module("superset.extensions").async_query_manager
    shown = {key: value for key, value in job.items() if key != "guest_token"}
    manager.update_job(shown, manager.STATUS_ERROR, errors=[_error(message, error_type)])


def reworded(errors: Sequence[Any]) -> list[Any]:
    """The errors of a chart's event, with what a user reads in place of what Superset makes of the soft limit."""
    return [
        _error(work.soft_limit(limit.get()), "ASYNC_WORKERS_ERROR") if TIMED_OUT in str(error) else error for error in errors
    ]


def _error(message: str, error_type: ErrorType) -> dict[str, Any]:
    """One error, as Superset's pages expect it."""
    errors = import_module("superset.errors")
    error = errors.SupersetError(
        message=message, error_type=errors.SupersetErrorType[error_type], level=errors.ErrorLevel.ERROR
    )
    return asdict(error)
