"""Run in Superset's environment: executes scripts on a guarded connection to PostgreSQL, statement by statement as Superset does.

Usage: guarded_process.py URI, with JSON on standard input: a list of {"read_only": bool, "statements": [sql]}. Prints for each
script a list: the first row of each statement, or the error with which it ended; last, where there was none,
the settings that outlive its transaction.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from psycopg2 import extensions
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from runtime.superset.statement_timeout import StatementTimeout, engine_params


def set_for_the_session(connection: Any) -> list[str]:
    """The settings that the next client of this session would find, asked past the guard."""
    with connection.cursor(cursor_factory=extensions.cursor) as cursor:
        # psycopg2 itself says in which form it wants dates.
        cursor.execute("SELECT name FROM pg_settings WHERE source = 'session' AND name <> 'DateStyle'")
        return [name for (name,) in cursor.fetchall()]


def execute(uri: str, statements: list[str], *, read_only: bool) -> list[Any]:
    """What each statement gives, on one connection, committed at the end where it may write."""
    mutator = StatementTimeout(default_seconds=5, most_seconds=5)
    url, params = mutator(make_url(uri), engine_params(2, read_only=read_only))
    connection = create_engine(url, poolclass=NullPool, **params).raw_connection()
    found: list[Any] = []
    try:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
            found.append(cursor.fetchone() if cursor.description else None)
        connection.commit()
        found.append({"set_for_the_session": set_for_the_session(connection)})
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
    finally:
        connection.close()
    return found


if __name__ == "__main__":
    scripts = json.load(sys.stdin)
    print(json.dumps([execute(sys.argv[1], it["statements"], read_only=it["read_only"]) for it in scripts], default=str))
