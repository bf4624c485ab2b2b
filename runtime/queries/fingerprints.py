"""What a statement is without its values: statements that differ only in these are one, as a database's own statistics have it.

Leans on sqlglot's tree (read and tested with the version that Superset 6.1.0 is locked to; no upstream issue known).
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

import sqlglot
from sqlglot import expressions as exp
from sqlglot.dialects.dialect import DialectType
from sqlglot.errors import SqlglotError

#: A longer text is not parsed: the parser needs 30 seconds for a megabyte.
MOST_CHARACTERS = 20_000


@lru_cache(maxsize=4096)
def fingerprint(sql: str, dialect: DialectType = None) -> str:
    """`sql` in one spelling, every value as `?`, and a list of values as one; no comment.

    A text that cannot be parsed, or is too long, is known by a digest of it: it holds values, which are not told.
    """
    if len(sql) > MOST_CHARACTERS:
        return f"(too long: {_digest(sql)})"
    try:
        trees = [tree for tree in sqlglot.parse(sql, dialect=dialect) if tree is not None]
        if any(isinstance(part, exp.Command) for tree in trees for part in tree.walk()):
            # The parser takes the rest of such a statement as it is.
            return f"({' '.join(sql.split()[:1]).upper()}: {_digest(sql)})"
        return "; ".join(tree.transform(_without_values).sql(dialect=dialect, comments=False) for tree in trees)
    except (SqlglotError, RecursionError, ValueError):
        return f"(not parsed: {_digest(sql)})"


def _without_values(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Literal | exp.Boolean | exp.Null | exp.Placeholder | exp.Parameter):
        return exp.Var(this="?")
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal):
        return exp.Var(this="?")
    if isinstance(node, exp.In) and node.expressions and all(_is_value(each) for each in node.expressions):
        node.set("expressions", [exp.Var(this="?")])
    if isinstance(node, exp.Values) and len(node.expressions) > 1:
        node.set("expressions", node.expressions[:1])
    return node


def _is_value(node: exp.Expression) -> bool:
    return isinstance(node, exp.Literal | exp.Boolean | exp.Null | exp.Var | exp.Neg)


def _digest(sql: str) -> str:
    return sha256(" ".join(sql.split()).encode()).hexdigest()[:12]
