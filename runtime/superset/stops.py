"""A query that is stopped stays stopped, and nothing of it begins afterwards. It is stopped by whose it is.

As shipped (Superset 6.1) every process writes the state that it believes in: a worker writes `running` over `stopped` and
executes the statement, `success` or `failed` over `stopped` when it ends; and a stop ends the session of the statement before it
writes `stopped`, so that the worker reports a lost connection. Here `stopped` is written first, from an open state only, and
committed; then the statement is cancelled. Whoever executes looks at the state after it has written how it can be cancelled
and before it executes: it finds `stopped`, or is cancelled.

Replaces `QueryDAO.stop_query`, `execute_sql_statements` and `handle_query_error` in `superset.sql_lab`, and listens to
SQLAlchemy's event before_flush
(read and tested with Superset 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known. Superset 7 moves SQL Lab onto its Global
Task Framework with its pull request 43928).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from flask import has_request_context

from runtime.environment import hooks, json_logs, metadata_database, versions
from runtime.queries import stops
from runtime.queries.interfaces import OPEN_STATES, Seen, superset
from runtime.superset import cancelling, kept_connections, principals
from runtime.superset.implementation import TASK_KEY
from runtime.superset.sql_parser import may_write
from runtime.superset.statement_timeout import is_read_only

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from superset.models.sql_lab import Query

logger = logging.getLogger(__name__)


class StoppedError(Exception):
    """A query that was stopped shall not begin."""


def install() -> None:
    """Have this process keep what is stopped; UntestedVersionError for a Superset of another version."""
    from sqlalchemy import event
    from superset import sql_lab
    from superset.daos.query import QueryDAO
    from superset.extensions import db

    versions.require(__name__, "apache-superset", "sqlalchemy")
    if not event.contains(db.session, "before_flush", keep_stopped):
        event.listen(db.session, "before_flush", keep_stopped)
    QueryDAO.stop_query = staticmethod(stop_query)
    hooks.replace(sql_lab, "execute_sql_statements", __name__, _leave_stopped)
    hooks.replace(sql_lab, "handle_query_error", __name__, _keep_words)


def stop_query(client_id: str) -> None:
    """Superset's `QueryDAO.stop_query`: returns once the query is stopped.

    Raises its QueryNotFoundException, and its SupersetCancelQueryException for a query that had ended before.
    """
    from superset.exceptions import QueryNotFoundException, SupersetCancelQueryException
    from superset.extensions import db
    from superset.models.sql_lab import Query

    session = db.session
    query = session.query(Query).filter_by(client_id=client_id).one_or_none()
    if query is None or (has_request_context() and not principals.is_theirs(query)):
        raise QueryNotFoundException(f"Query with client_id {client_id} not found")
    json_logs.about(query_id=str(query.id))
    # A worker has written it down with its attempt; what runs in a web process is parsed here, before its row is held.
    writes = TASK_KEY not in query.extra and _may_write(query)
    before = stops.stop(session.connection(), query.id, writes_unrecorded=writes)
    session.commit()
    if before not in (*OPEN_STATES, "stopped"):
        raise SupersetCancelQueryException(f"This query was not stopped: it had ended before, with the state {before!r}.")
    if before not in ("pending", "stopped"):
        seen = _cancel(query)
        stops.say_seen(session.connection(), query.id, seen)
        session.commit()


def may_write_again(query: Query) -> bool:
    """Whether executing a query once more may write; true for what cannot be parsed."""
    return bool(query.select_as_cta) or any(_writes(query, str(sql)) for sql in (query.sql, query.executed_sql) if sql)


def _may_write(query: Query) -> bool:
    return _writes(query, str(query.executed_sql or query.sql or ""))


def _writes(query: Query, sql: str) -> bool:
    database = query.database
    read_only = is_read_only(str(database.sqlalchemy_uri), cast("str | None", database.extra))
    return may_write(sql, database.db_engine_spec.engine, read_only_session=read_only)


def _cancel(query: Query) -> Seen:
    """Cancel its statement. Where that fails it goes on until its own limit, and its query is stopped all the same."""
    try:
        return cancelling.cancel_statement(query)
    except Exception:
        logger.warning("query %s is stopped; its statement could not be cancelled", query.id, exc_info=True)
        return "unknown"


def _state(row: object) -> Any:
    """What SQLAlchemy knows of a row's changes."""
    from sqlalchemy import inspect

    return inspect(row)


def keep_stopped(session: Session, *_: object) -> None:
    """SQLAlchemy's event before_flush: what a process would write over a stopped query is dropped, and it may not begin.

    It asks the database, and holds the row until the session's transaction ends, where a query's state is to change.
    """
    from superset.models.sql_lab import Query

    for changed in list(session.dirty):
        if not isinstance(changed, Query) or not _state(changed).attrs.status.history.has_changes():
            continue
        asked = "SELECT status FROM query WHERE id = %s FOR UPDATE"
        if session.connection().exec_driver_sql(asked, cast(Any, (changed.id,))).scalar() != "stopped":
            continue
        # Whoever has stopped it ends its session.
        kept_connections.kept.drop()
        if changed.status in OPEN_STATES:
            raise StoppedError(f"query {changed.id} was stopped")
        logger.info("query %s was stopped, and stays so: it would have become %r", changed.id, changed.status)
        session.expire(changed)


def _keep_words(shipped: Callable[..., Any]) -> Callable[..., Any]:
    """What the user of a query was told that was called lost while its process stood still: that stays."""

    def handle_query_error(ex: Exception, query: Query, *args: Any, **kwargs: Any) -> Any:
        from superset.extensions import db

        try:
            with metadata_database.transaction() as connection:
                status, said = superset().ending.state(connection, query.id)
        except Exception:
            return shipped(ex, query, *args, **kwargs)
        if status != "failed":
            return shipped(ex, query, *args, **kwargs)
        logger.info("query %s had been ended, and keeps its words: %s", query.id, ex)
        db.session.rollback()
        return {"query_id": query.id, "status": status, "error": said, "errors": []}

    return handle_query_error


def _leave_stopped(shipped: Callable[..., Any]) -> Callable[..., Any]:
    from superset.extensions import db

    def execute_sql_statements(query_id: int, *args: Any, **kwargs: Any) -> Any:
        try:
            return shipped(query_id, *args, **kwargs)
        except StoppedError:
            db.session.rollback()
            logger.info("query %s was stopped before its statement began", query_id)
            return {"query_id": query_id, "status": "stopped"}

    return execute_sql_statements
