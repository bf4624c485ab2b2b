"""Whether a statement may change data: the question on which it depends if it may be executed again.

Superset 6.1's own answer (`SQLScript.has_mutation`) says which statements it refuses, and lets pass what may write all the
same: CALL, EXECUTE, COPY, SELECT … INTO, EXPLAIN (ANALYZE), functions. Here only what is known to read is a read.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def may_write(sql: str, engine: str, *, read_only_session: bool) -> bool:
    """Whether `sql`, for Superset's `engine`, may change data; true for what cannot be parsed.

    What a function does, a parser cannot see: in a session that the database keeps read-only no function of a query writes,
    in any other one a function that is not SQL's own may.
    """
    try:
        script = import_module("superset.sql.parse").SQLScript(sql, engine=engine)
        return script.has_mutation() or any(
            _statement_may_write(statement._parsed, read_only_session) for statement in script.statements
        )
    except Exception:
        return True


def _statement_may_write(parsed: Any, read_only_session: bool) -> bool:
    expressions = import_module("sqlglot.expressions")
    if isinstance(parsed, expressions.Command):
        words = f"{parsed.name} {parsed.expression}".upper()
        return not (words.startswith("SHOW ") or (words.startswith("EXPLAIN ") and "ANALYZE" not in words))
    if not isinstance(parsed, expressions.Query) or parsed.find(expressions.Into):
        return True
    return not read_only_session and parsed.find(expressions.Anonymous, expressions.NextValueFor) is not None
