"""Run in Superset's environment: which of the statements on standard input may write, in ordinary and in read-only sessions."""

from __future__ import annotations

import json
import sys

from runtime.superset.sql_parser import may_write


def main() -> None:
    """Print as JSON, for each statement, both answers."""
    statements: list[str] = json.loads(sys.argv[1])
    answers = {
        sql: [may_write(sql, "postgresql", read_only_session=read_only) for read_only in (False, True)] for sql in statements
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
