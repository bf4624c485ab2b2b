"""Whether the first statement of the query that this task executes has begun: commits, and the loss of the metadata database,
mean something else before and after.

Replaces `execute_sql_statements` and `execute_query` in `superset.sql_lab` (read and tested with Superset 6.1.0; no upstream
issue known).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from runtime.environment import hooks, versions

#: None before a query of this task, and after one of which no statement began.
_begun: ContextVar[bool | None] = ContextVar("begun", default=None)


def install() -> None:
    """Have this process know it; UntestedVersionError for a Superset of another version."""
    from superset import sql_lab

    versions.require(__name__)
    hooks.replace(sql_lab, "execute_sql_statements", __name__, _statements)
    hooks.replace(sql_lab, "execute_query", __name__, _statement)


def is_prepared() -> bool:
    """Whether a query is executed of which no statement has begun."""
    return _begun.get() is False


def has_begun() -> bool:
    """Whether one has, of the last query of this task: also when all have ended."""
    return _begun.get() is True


def _statements(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def execute_sql_statements(*args: Any, **kwargs: Any) -> Any:
        _begun.set(False)
        try:
            return shipped(*args, **kwargs)
        finally:
            if is_prepared():
                _begun.set(None)

    return execute_sql_statements


def _statement(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def execute_query(*args: Any, **kwargs: Any) -> Any:
        _begun.set(True)
        return shipped(*args, **kwargs)

    return execute_query
