"""A query whose worker loses the metadata database while the statement runs: a read is tried again, a write says what is known.

As shipped (Superset 6.1) it fails with the words of the metadata database's driver, also where the statement was committed; or
stays `running`, since that cannot be written either.

Replaces `execute_sql_statements` and `handle_query_error` in `superset.sql_lab` (read and tested with Superset 6.1.0 and
SQLAlchemy 1.4.54; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from runtime.environment import hooks, metadata_database, versions
from runtime.queries import transient_errors
from runtime.superset import first_statement


def install() -> None:
    """Have this process's tasks leave Superset's code then; UntestedVersionError for a Superset of another version."""
    from superset import sql_lab

    versions.require(__name__, "apache-superset", "sqlalchemy")
    first_statement.install()
    hooks.replace(sql_lab, "execute_sql_statements", __name__, _statements)
    hooks.replace(sql_lab, "handle_query_error", __name__, _failed)


def _statements(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def execute_sql_statements(*args: Any, **kwargs: Any) -> Any:
        try:
            return shipped(*args, **kwargs)
        except Exception as error:
            leave_if_lost(error)
            raise

    return execute_sql_statements


def _failed(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def handle_query_error(ex: Exception, *args: Any, **kwargs: Any) -> Any:
        leave_if_lost(ex)
        return shipped(ex, *args, **kwargs)

    return handle_query_error


def leave_if_lost(error: BaseException) -> None:
    """Leave the task where `error` is, or followed from, the loss of the metadata database after a statement had begun.

    From then on SQLAlchemy's errors are the metadata database's: statements of analytic databases go to their drivers, and only
    their connections, which are there before, are SQLAlchemy's.
    """
    from superset.extensions import db

    if first_statement.has_begun() and any(_is_loss(each) for each in chain(error)):
        with suppress(Exception):
            db.session.rollback()
        transient_errors.end_unwritten(error)


def _is_loss(error: BaseException) -> bool:
    from sqlalchemy import exc

    # Rolled back: the session goes on only after it has noticed what it lost.
    return metadata_database.is_away(error) or isinstance(error, exc.PendingRollbackError)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, and what was being handled when it was raised."""
    seen: set[int] = set()
    # What was being handled may name as its cause what was raised: such a chain has no end.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
