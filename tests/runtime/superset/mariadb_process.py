"""Run in Superset's environment: a statement of MariaDB, cancelled by identities true and false, and ended by its limit.

Usage: mariadb_process.py URI. Prints as JSON what its own connection was told (`told`), what the server says of a statement
that takes longer than its limit (`limit`), and for each identity what was seen of its session, and whether the statement runs
afterwards.
"""

from __future__ import annotations

import json
import sys
import threading
from types import SimpleNamespace
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from runtime.superset import cancelling
from runtime.superset.statement_timeout import StatementTimeout, engine_params


def connect(uri: str, seconds: int = 60) -> Any:
    limit = StatementTimeout(default_seconds=seconds, most_seconds=seconds)
    url, params = limit(make_url(uri), engine_params(seconds))
    return create_engine(url, poolclass=NullPool, **params).raw_connection()


def told(connection: Any, statement: str) -> list[Any]:
    """The error of a statement, its rows otherwise."""
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        return list(cursor.fetchall())
    except Exception as error:
        return [error.args[0]]


def runs(cursor: Any, number: str) -> bool:
    cursor.execute(
        "SELECT count(*) FROM information_schema.processlist WHERE id = %s AND info LIKE 'SELECT SLEEP%%'", (number,)
    )
    return cursor.fetchone() == (1,)


def cancelled(uri: str) -> dict[str, Any]:
    from superset.db_engine_specs.mysql import MySQLEngineSpec

    first, other = connect(uri), connect(uri)
    query: Any = SimpleNamespace(id=8, database=SimpleNamespace(sqlalchemy_uri=uri))
    own = str(MySQLEngineSpec.get_cancel_query_id(first.cursor(), query))
    number, tag = own.split(" ")
    found: dict[str, Any] = {"told": []}
    thread = threading.Thread(target=lambda: found["told"].extend(told(first, "SELECT SLEEP(50)")))
    thread.start()
    cursor = other.cursor()
    while not runs(cursor, number):
        thread.join(0.05)
    for name, identity in {
        "its number": number,
        "another number": f"{int(number) + 1000} {tag}",
        "another tag": f"{number} {cancelling.tag(8)}",
        "all its own": own,
        "once more": own,
    }.items():
        found[name] = [cancelling.cancel_mysql(cursor, identity), runs(cursor, number)]
    thread.join()
    again = connect(uri)
    own = str(MySQLEngineSpec.get_cancel_query_id(again.cursor(), query))
    found["as Superset stops it"] = MySQLEngineSpec.cancel_query(cursor, query, own)
    found["as Superset has it from before"] = MySQLEngineSpec.cancel_query(cursor, query, own.split(" ")[0])
    limited = connect(uri, 1)
    found["limit"] = told(limited, "SELECT SLEEP(50) FROM information_schema.tables")
    return found


def main() -> None:
    """As a process of Superset that is configured."""
    from superset.app import create_app

    with create_app().app_context():
        cancelling.install()
        print(json.dumps(cancelled(sys.argv[1])))


if __name__ == "__main__":
    main()
