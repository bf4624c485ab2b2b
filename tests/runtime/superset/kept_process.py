"""Run in Superset's environment: leaves things in a kept session, and says what the next user of it finds.

Usage: kept_process.py URI. Prints as JSON: `leaks`, for each way to leave something what the next one found and whether it had
the same session; `engines`, which ways to connect share a session; `guards`, what the next one may not do either.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from psycopg2 import extensions
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from runtime.superset import kept_connections
from runtime.superset.kept_connections import KeptEngines
from runtime.superset.statement_timeout import StatementTimeout, engine_params
from tests.runtime.superset.leaks import LEAKS


def connect(engines: KeptEngines, uri: str, *, read_only: bool, seconds: int = 2) -> Any:
    """A connection as a task gets it."""
    mutator = StatementTimeout(default_seconds=5, most_seconds=5)
    url, params = mutator(make_url(uri), engine_params(seconds, read_only=read_only, keep=True))
    return engines.get(url, {**params, "poolclass": NullPool}, create_engine).raw_connection()


def ask(connection: Any, *statements: str) -> Any:
    """The first column of the last statement's first row, or its error."""
    try:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def session(connection: Any) -> int:
    """Which session of the server it is, past the guard."""
    with connection.cursor(cursor_factory=extensions.cursor) as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def leaks(uri: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    engines = KeptEngines()
    for what, (left, asked) in LEAKS.items():
        connection = connect(engines, uri, read_only=False)
        first = session(connection)
        said = ask(connection, *left)
        connection.close()
        connection = connect(engines, uri, read_only=False)
        found[what] = {"same session": session(connection) == first, "said": said, "found": ask(connection, asked)}
        connection.close()
    return found


def shared(uri: str) -> dict[str, bool]:
    """Whether two connections, one after the other, had one session."""
    engines = KeptEngines()

    def same(*ways: dict[str, Any]) -> bool:
        sessions: list[int] = []
        for way in ways:
            connection = connect(engines, str(way.pop("uri", uri)), **{"read_only": True, **way})
            sessions.append(session(connection))
            connection.close()
        return len(set(sessions)) == 1

    url = make_url(uri)
    superuser = url.set(query={"application_name": "somebody else"}).render_as_string(hide_password=False)
    found = {
        "the same": same({}, {}),
        "another user's URI": same({}, {"uri": superuser}),
        "another limit": same({}, {"seconds": 3}),
        "writing": same({}, {"read_only": False}),
        "many": len({id(engines.get(url, {"poolclass": NullPool, "echo": name}, create_engine)) for name in (False, True)})
        == 1,
    }
    connection = connect(engines, uri, read_only=True)
    before = session(connection)
    connection.close()
    engines.drop()
    connection = connect(engines, uri, read_only=True)
    found["after a query that was stopped"] = session(connection) == before
    before = session(connection)
    connection.close()
    # A task after which somebody else ended the session: found out before it is used.
    other = create_engine(uri, poolclass=NullPool).raw_connection()
    ask(other, f"SELECT pg_terminate_backend({before})")
    other.close()
    kept_connections.TRY_SECONDS = 0.0
    connection = connect(engines, uri, read_only=True)
    found["after the server ended it"] = session(connection) == before
    connection.close()
    return found


def bound(uri: str) -> int:
    """How many engines a child keeps of five."""
    engines = KeptEngines()
    for seconds in (1, 2, 3, 4, 5):
        connect(engines, uri, read_only=True, seconds=seconds).close()
    return len(engines._engines)


def guards(uri: str) -> dict[str, Any]:
    engines = KeptEngines()
    connection = connect(engines, uri, read_only=True)
    ask(connection, "SELECT 1")
    connection.close()
    connection = connect(engines, uri, read_only=True)
    found = {
        "limit": ask(connection, "SELECT count(*) FROM generate_series(1, 10000000000)"),
        "writes": ask(connection, "ROLLBACK") or ask(connection, "CREATE TABLE written (n integer)"),
    }
    connection.close()
    connection = connect(engines, uri, read_only=True)
    found["writes"] = ask(connection, "CREATE TABLE written (n integer)")
    connection.close()
    return found


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "leaks": leaks(sys.argv[1]),
                "shared": shared(sys.argv[1]),
                "bound": bound(sys.argv[1]),
                "guards": guards(sys.argv[1]),
            }
        )
    )
