"""Run in Superset's environment: which statements may write, in ordinary and in read-only sessions, and commit."""

from __future__ import annotations

import json
import sys

from runtime.superset.sql_parser import commits, may_write


def main() -> None:
    """Print as JSON, for each statement, both answers, and whether Superset is known to commit it (None: not parsed)."""
    statements: list[str] = json.loads(sys.argv[1])
    answers = {
        sql: [*(may_write(sql, "postgresql", read_only_session=read_only) for read_only in (False, True)), _commits(sql)]
        for sql in statements
    }
    print(json.dumps(answers))


def _commits(sql: str) -> bool | None:
    try:
        return commits(sql, "postgresql")
    except Exception:
        return None


if __name__ == "__main__":
    main()
