"""A statement is cancelled from outside by what only it has, and what was seen of it afterwards is said.

As shipped (Superset 6.1) it is the number of its session alone: by the time of the stop that may be a stranger's, or the same
session with another user's query, and nobody looks whether it has ended. Here a query's session carries a tag of its own while it
executes, by which it is found:

- PostgreSQL: `application_name`, which a statement may not change, set in each transaction: so behind a pooler in transaction
  mode the tag goes where the query goes. It is cancelled where number, start of the backend and tag are all its own.
- MySQL and MariaDB: a lock with the tag as its name (GET_LOCK), which the server gives to one session and takes back when that
  ends, at the latest when the server ends. It is cancelled where that number holds that lock; a start is not known to every user,
  and not needed. A server that gives no such lock (some clusters refuse it) cancels nothing.

A query that a process of an older version began is known by a number alone: it is not cancelled, and ends by its limit. Databases
of other engines and drivers are cancelled as shipped, and nobody looks.

Replaces `get_cancel_query_id` and `cancel_query` of `PostgresEngineSpec` and `MySQLEngineSpec` (read and tested with Superset
6.1.0, PostgreSQL 14 and newer and MariaDB 10.11; no upstream issue known).
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from runtime.environment import hooks, versions
from runtime.queries.interfaces import Seen

if TYPE_CHECKING:
    from superset.models.sql_lab import Query

logger = logging.getLogger(__name__)

#: How long a cancellation waits to see its session gone, and how often it looks.
SEEN_SECONDS, LOOK_SECONDS = 4.0, 0.05
_TAG = r"superset-async-\d+-[0-9a-f]+"
#: What a query of PostgreSQL is cancelled by: number and start (seconds since the epoch) of its backend, and its tag.
_POSTGRES_IDENTITY = re.compile(rf"(\d+) ([\d.]+) ({_TAG})")
_STARTED = "extract(epoch FROM backend_start)::text"
_ITS = f"FROM pg_stat_activity WHERE pid = %s AND {_STARTED} = %s AND application_name = %s AND pid <> pg_backend_pid()"
#: The session, whatever it is called now, while it does anything. Who may not see start and state reads NULL.
_BUSY = (
    f"FROM pg_stat_activity WHERE pid = %s AND coalesce({_STARTED}, %s) = %s AND state IS DISTINCT FROM 'idle' "
    "AND pid <> pg_backend_pid()"
)
#: What a query of MySQL and MariaDB is cancelled by: the number of its session, and its tag.
_MYSQL_IDENTITY = re.compile(rf"(\d+) ({_TAG})")
#: MySQL's error for a session that is not there.
_NO_SUCH_SESSION = 1094


def install() -> None:
    """Have this process cancel so; UntestedVersionError for a Superset of another version."""
    from superset.db_engine_specs.mysql import MySQLEngineSpec
    from superset.db_engine_specs.postgres import PostgresEngineSpec

    versions.require(__name__, "apache-superset")
    for spec in (PostgresEngineSpec, MySQLEngineSpec):
        hooks.replace(spec, "get_cancel_query_id", __name__, _identified)
        hooks.replace(spec, "cancel_query", __name__, _seen_gone)


def tag(query_id: int) -> str:
    """A name for the session of a query while it executes; another one each time (PostgreSQL keeps 63 characters, MySQL 64)."""
    return f"superset-async-{query_id}-{secrets.token_hex(8)}"


def identity(cursor: Any, query_id: int) -> str:
    """Tag the session of `cursor`, which has a guard, for a query, and give what the query is cancelled by."""
    name = tag(query_id)
    cursor.connection.tag = name
    cursor.execute(f"SELECT pid, {_STARTED} FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    pid, started = cursor.fetchone()
    return f"{pid} {started} {name}"


def mysql_identity(cursor: Any, query_id: int) -> str:
    """The same in MySQL and MariaDB; the session's number alone, by which nothing is cancelled, where it gets no lock."""
    name = tag(query_id)
    cursor.execute("SELECT CONNECTION_ID()")
    (number,) = cursor.fetchone()
    try:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
        held = cursor.fetchone() == (1,)
    except Exception:
        logger.info("query %s is not cancelled where it is stopped: its database gives no lock", query_id, exc_info=True)
        held = False
    return f"{number} {name}" if held else str(number)


def cancel(cursor: Any, identity: object) -> Seen:
    """End the session that has this identity, from a session of its own; what was seen of its statement.

    `gone` where the session is not there, or idle: its statement has ended. `unknown` for what is no identity, and where its
    session executes something under another name, or cannot be seen: it may hide the statement. Raises what the driver raises.
    """
    found = _POSTGRES_IDENTITY.fullmatch(str(identity))
    if found is None:
        return "unknown"
    pid, started, name = found.groups()
    cursor.execute(f"SELECT pg_terminate_backend(pid) {_ITS}", (pid, started, name))
    if cursor.fetchone() is None:
        cursor.execute(f"SELECT count(*) {_BUSY}", (pid, started, started))
        return "gone" if cursor.fetchone() == (0,) else "unknown"

    def is_there() -> bool:
        cursor.execute(f"SELECT count(*) {_ITS}", (pid, started, name))
        return cursor.fetchone() != (0,)

    return _until_gone(cursor, name, is_there)


def cancel_mysql(cursor: Any, identity: object) -> Seen:
    """The same in MySQL and MariaDB."""
    found = _MYSQL_IDENTITY.fullmatch(str(identity))
    if found is None:
        return "unknown"
    number, name = int(found[1]), found[2]

    def is_there() -> bool:
        cursor.execute("SELECT IS_USED_LOCK(%s)", (name,))
        return cursor.fetchone() == (number,)

    if not is_there():
        cursor.execute("SELECT count(*) FROM information_schema.processlist WHERE id = %s AND command <> 'Sleep'", (number,))
        return "gone" if cursor.fetchone() == (0,) else "unknown"
    try:
        # The server itself looks once more whether it is that query's session.
        cursor.execute("KILL CONNECTION IF(IS_USED_LOCK(%s) = %s, %s, 0)", (name, number, number))
    except Exception as error:
        if error.args[:1] != (_NO_SUCH_SESSION,):
            raise
    return _until_gone(cursor, name, is_there)


def _until_gone(cursor: Any, name: str, is_there: Callable[[], bool]) -> Seen:
    until = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < until:
        # Within one transaction a server shows what it showed first.
        cursor.connection.rollback()
        if not is_there():
            return "gone"
        time.sleep(LOOK_SECONDS)
    logger.warning("the session of %s was told to end, and was not seen gone within %.0f s", name, SEEN_SECONDS)
    return "running"


def cancel_statement(query: Query) -> Seen:
    """Cancel a query's statement in its database, from a connection of its own, as its user; what was seen of it.

    Of engines and drivers without a tag it is not known: nobody looks. Raises what drivers raise.
    """
    from superset import sql_lab
    from superset.constants import QUERY_CANCEL_KEY
    from superset.utils.core import QuerySource

    # Under impersonation a session can be seen and ended by its own role alone.
    with _as_user(query.user):
        if _engine(query) is None:
            sql_lab.cancel_query(query)
            return "unknown"
        identity = query.extra.get(QUERY_CANCEL_KEY)
        if identity is None:
            # It is written before a statement begins.
            return "gone"
        database: Any = query.database
        with (
            database.get_sqla_engine(catalog=query.catalog, schema=query.schema, source=QuerySource.SQL_LAB) as engine,
            closing(engine.raw_connection()) as connection,
            closing(connection.cursor()) as cursor,
        ):
            cancels = _cancels(query, cursor)
            if cancels is None:
                database.db_engine_spec.cancel_query(cursor, query, identity)
                return "unknown"
            return cancels(cursor, identity)


@contextmanager
def _as_user(user: object) -> Generator[None]:
    """Superset's `override_user` keeps the other user where the block raises."""
    from flask import g

    before = getattr(g, "user", None)
    g.user = user
    try:
        yield
    finally:
        g.user = before


def _engine(query: Query) -> str | None:
    """The engine of a query's database; None for one, or a driver, whose sessions have no tag."""
    engine, _, driver = str(query.database.sqlalchemy_uri).partition(":")[0].partition("+")
    if engine == "postgresql":
        return engine if driver in ("", "psycopg2") else None
    return "mysql" if engine in ("mysql", "mariadb") else None


def _cancels(query: Query, cursor: Any) -> Callable[[Any, object], Seen] | None:
    """What cancels a query in a session of `cursor`; None where that has no tag: a connection class of somebody else's, too."""
    engine = _engine(query)
    if engine == "postgresql":
        return cancel if hasattr(getattr(cursor, "connection", None), "tag") else None
    return cancel_mysql if engine else None


def _identified(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def get_cancel_query_id(cursor: Any, query: Any) -> Any:
        cancels = _cancels(query, cursor)
        if cancels is cancel_mysql:
            return mysql_identity(cursor, query.id)
        return identity(cursor, query.id) if cancels else shipped(cursor, query)

    return get_cancel_query_id


def _seen_gone(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def cancel_query(cursor: Any, query: Any, cancel_query_id: Any) -> bool:
        cancels = _cancels(query, cursor)
        return cancels(cursor, cancel_query_id) == "gone" if cancels else shipped(cursor, query, cancel_query_id)

    return cancel_query
