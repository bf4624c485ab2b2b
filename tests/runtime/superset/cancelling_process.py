"""Run in Superset's environment: a statement on a guarded connection, cancelled from another one by identities true and false.

Usage: cancelling_process.py URI STRANGER STATEMENT; STRANGER is the URI of another role. Prints as JSON whether the session was
tagged (`tagged`), what its own connection was told (`told`), and for each identity what was seen of its session, and whether the
statement runs afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from runtime.superset import cancelling
from runtime.superset.statement_timeout import StatementTimeout, engine_params


def connect(uri: str) -> Any:
    url, params = StatementTimeout(default_seconds=60, most_seconds=60)(make_url(uri), engine_params(60, read_only=True))
    return create_engine(url, poolclass=NullPool, **params).raw_connection()


def named(connection: Any) -> str:
    cursor = connection.cursor()
    cursor.execute("SHOW application_name")
    return cursor.fetchone()[0]


def runs(cursor: Any, pid: str) -> bool:
    cursor.connection.rollback()
    cursor.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE %s", (pid, "%slow%")
    )
    return cursor.fetchone() == (1,)


def executed(connection: Any, statement: str, told: list[str]) -> None:
    try:
        connection.cursor().execute(statement)
    except Exception as error:
        told.append(type(error).__name__)


def cancelled(uri: str, stranger: str, statement: str) -> dict[str, Any]:
    first, other, anothers = connect(uri), connect(uri), connect(stranger)
    earlier = cancelling.identity(first.cursor(), 7)
    first.rollback()
    own = cancelling.identity(first.cursor(), 8)
    idle = connect(uri)
    ended = cancelling.identity(idle.cursor(), 9)
    idle.rollback()
    found: dict[str, Any] = {"tagged": named(first) == own.split(" ")[2], "told": []}
    pid, started, tag = own.split(" ")
    thread = threading.Thread(target=executed, args=(first, statement, found["told"]))
    thread.start()
    cursor = other.cursor()
    while not runs(cursor, pid):
        thread.join(0.05)
    for name, identity in {
        "its number": pid,
        "number, and start of an earlier backend": f"{pid} {float(started) - 60:.6f} {tag}",
        "the last query of its session": earlier,
        "a session that is idle": ended,
        "another tag": f"{pid} {started} {cancelling.tag(8)}",
        "all its own": own,
        "once more": own,
    }.items():
        if name == "all its own":
            found["as another role"] = [cancelling.cancel(anothers.cursor(), identity), runs(cursor, pid)]
            # Its server's process stands still: it is told to end, and is there.
            os.kill(int(pid), signal.SIGSTOP)
            try:
                found["it stands still"] = [cancelling.cancel(cursor, identity), runs(cursor, pid)]
            finally:
                os.kill(int(pid), signal.SIGCONT)
        found[name] = [cancelling.cancel(cursor, identity), runs(cursor, pid)]
    thread.join()
    return found


if __name__ == "__main__":
    # To see that it stands still takes no longer than to see it at all.
    cancelling.SEEN_SECONDS = 0.5
    print(json.dumps(cancelled(*sys.argv[1:])))
