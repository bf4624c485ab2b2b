"""Whether a statement may change data: the question on which it depends if it may be executed again. Pure.

Superset 6.1's own answer (`SQLScript.has_mutation`) says which statements it refuses, and lets pass what may write all the
same: CALL, EXECUTE, COPY, SELECT … INTO, EXPLAIN (ANALYZE), functions. Here only what is known to read is a read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.expressions import Expression


def expression_may_write(parsed: Expression, *, read_only_session: bool) -> bool:
    """Whether a statement that sqlglot has parsed may change data."""
    from sqlglot import expressions

    if isinstance(parsed, expressions.Command):
        words = f"{parsed.name} {parsed.expression}".upper()
        return not (words.startswith("SHOW ") or (words.startswith("EXPLAIN ") and "ANALYZE" not in words))
    if not isinstance(parsed, expressions.Query) or parsed.find(expressions.Into):
        return True
    return not read_only_session and parsed.find(expressions.Anonymous, expressions.NextValueFor) is not None
