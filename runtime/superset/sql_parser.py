"""Superset's parser of SQL, asked whether a statement may change data; what it has parsed here a worker does not parse again.

Replaces `SQLScript` in `superset.sql_lab`, and leans on `superset.sql.parse.SQLScript` and the statement that it parsed
(`_parsed`, of sqlglot; read and tested with 6.1.0).

(No upstream issue known.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from runtime.environment import hooks, versions
from runtime.queries.write_detection import expression_may_write

if TYPE_CHECKING:
    from sqlglot.expressions import Expression

#: Characters of SQL that are parsed in about a second. A megabyte takes a quarter of a minute (sqlglot is written in Python),
#: in which a query's row would say that it waits.
LONG = 64 * 1024
#: What this task has parsed last, with its SQL and engine, until it is taken: who takes it may change it.
_parsed: ContextVar[tuple[str, str, Any] | None] = ContextVar("parsed", default=None)


def install() -> None:
    """Have SQL Lab execute what was parsed for its fence; UntestedVersionError for a Superset of another version."""
    from superset import sql_lab

    versions.require(__name__, "apache-superset")
    hooks.replace(sql_lab, "SQLScript", __name__, taken)


def taken(shipped: Callable[..., Any]) -> Callable[..., Any]:
    """SQL Lab's parser, `shipped`, that takes what this task has parsed last, where that is the same, once."""

    def script(sql: str, engine: str) -> Any:
        parsed = _parsed.get()
        _parsed.set(None)
        return parsed[2] if parsed and parsed[:2] == (sql, engine) else shipped(sql, engine=engine)

    return script


def commits(sql: str, engine: str) -> bool:
    """Whether Superset itself is known to commit the transaction of `sql` once all of it was executed.

    False for SQL that is too long to be parsed: whether it committed is not known.
    """
    from superset.sql.parse import SQLScript

    return len(sql) <= LONG and SQLScript(sql, engine=engine).has_mutation()


def may_write(sql: str, engine: str, *, read_only_session: bool) -> bool:
    """Whether `sql`, for Superset's `engine`, may change data; true for what cannot be parsed.

    What a function does, a parser cannot see: in a session that the database keeps read-only no function of a query writes,
    in any other one a function that is not SQL's own may. SQL that is too long to be parsed is judged by its session alone.
    """
    from superset.sql.parse import SQLScript

    if len(sql) > LONG:
        return not read_only_session
    try:
        script = SQLScript(sql, engine=engine)
        _parsed.set((sql, engine, script))
        return script.has_mutation() or any(
            expression_may_write(cast("Expression", statement._parsed), read_only_session=read_only_session)
            for statement in script.statements
        )
    except Exception:
        return True
