"""A query in a worker has one transaction of Superset's before its statement, and one after it.

As shipped (Superset 6.1) a worker commits four times before a statement, each time with a read of the rows that the commit
expired: that the query runs, how it can be cancelled, how far it is, and what is executed. Here the first three wait for the
fourth, which comes right before the statement. What a stop goes by still holds: how the query can be cancelled is written before
its state is read (in one transaction, whose row lock a stop waits for), and committed before its statement begins. That it runs,
and since when, the worker has written with the execution (`runtime.queries.deliveries`).

The record of the execution (`runtime.queries.executions`) gets its end in the transaction in which the query's row becomes
`success`: one transaction after the statement, and neither without the other. Any other end is recorded by what the row says,
once Superset has returned.

Replaces `commit` of Superset's session (read and tested with Superset 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from runtime.environment import hooks, versions
from runtime.queries import executions, final_states
from runtime.superset import first_statement
from topology.commands import ROLE_ENV


def install() -> None:
    """Commit so in this process, where it is a worker; UntestedVersionError for a Superset of another version."""
    from superset.extensions import db

    versions.require(__name__, "apache-superset", "sqlalchemy")
    if os.environ.get(ROLE_ENV) != "worker":
        return
    first_statement.install()
    hooks.replace(db.session, "commit", __name__, _commit)


def _commit(shipped: Callable[..., Any]) -> Callable[..., Any]:
    from superset.extensions import db

    def commit() -> None:
        session: Any = db.session
        if not first_statement.is_prepared():
            ended = first_statement.has_begun() and _record_success(session)
            shipped()
            if ended:
                final_states.unended.set(None)
            return
        for row in list(session.dirty):
            if changed(row) == {"start_running_time"}:
                # Written with the execution. A row that is written here stays locked until the statement begins: that is not to
                # be before its database is connected to.
                session.expire(row, ["start_running_time"])
        # What `refresh` reads next is not to be without what is written here.
        session.flush()

    return commit


def _record_success(session: Any) -> bool:
    """Write that the execution has succeeded, where the query's row becomes so with this commit; whether it does."""
    from superset.models.sql_lab import Query

    query_id, attempt = final_states.unended.get() or (None, 0)
    ends = [row for row in session.dirty if isinstance(row, Query) and row.id == query_id and "status" in changed(row)]
    if not ends or ends[0].status != "success":
        return False
    session.flush()
    # One that was stopped meanwhile stays so, and was forgotten by the flush (`runtime.superset.stops`).
    if "status" not in vars(ends[0]):
        return False
    executions.end(session.connection(), "sql", str(query_id), "success", attempt)
    return True


def changed(row: object) -> set[str]:
    """The attributes of a row that the next flush writes."""
    from sqlalchemy import inspect

    state: Any = inspect(row)
    return {attribute.key for attribute in state.attrs if attribute.history.has_changes()}
