"""Run in Superset's environment: which statements may write, in ordinary and in read-only sessions, and commit."""

from __future__ import annotations

import json
import sys

from runtime.superset import sql_parser
from runtime.superset.sql_parser import commits, may_write


def main() -> None:
    """Print as JSON, for each statement, both answers, and whether Superset is known to commit it (None: not parsed).

    Under "handed over" stands how often SQL Lab then parses anew: for the same statement, once more for it, for another engine.
    """
    statements: list[str] = json.loads(sys.argv[1])
    answers = {
        sql: [*(may_write(sql, "postgresql", read_only_session=read_only) for read_only in (False, True)), _commits(sql)]
        for sql in statements
    }
    print(json.dumps({**answers, "handed over": _parsed_anew()}))


def _parsed_anew() -> list[int]:
    parsed: list[str] = []

    def parse(sql: str, engine: str) -> str:
        parsed.append(sql)
        return sql

    counts: list[int] = []
    script = sql_parser.taken(parse)
    for engine in ("postgresql", "postgresql", "mysql"):
        if len(counts) != 1:
            may_write("SELECT 1", "postgresql", read_only_session=True)
        script("SELECT 1", engine=engine)
        counts.append(len(parsed))
    return counts


def _commits(sql: str) -> bool | None:
    try:
        return commits(sql, "postgresql")
    except Exception:
        return None


if __name__ == "__main__":
    main()
