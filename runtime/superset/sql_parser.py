"""Superset's parser of SQL, asked whether a statement may change data.

Leans on `superset.sql.parse.SQLScript` and the statement that it parsed (`_parsed`, of sqlglot; read and tested with 6.1.0).

(No upstream issue known.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runtime.queries.write_detection import expression_may_write

if TYPE_CHECKING:
    from sqlglot.expressions import Expression

#: Characters of SQL that are parsed in about a second. A megabyte takes a quarter of a minute (sqlglot is written in Python),
#: in which a query's row would say that it waits.
LONG = 64 * 1024


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
        return script.has_mutation() or any(
            expression_may_write(cast("Expression", statement._parsed), read_only_session=read_only_session)
            for statement in script.statements
        )
    except Exception:
        return True
