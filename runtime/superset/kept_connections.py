"""A worker's child keeps its connection to an analytic database for the next query, where the stack says so.

As shipped (Superset 6.1) each query connects anew: a handshake, a new process of the server, and the questions that a driver and
a dialect ask of a server that they do not know, which together cost more than a small query. A connection is kept where all of
this holds: the stack says `keep_connections` of the database (not behind a pooler in transaction mode, where a session is
nobody's), it is PostgreSQL, its sessions only read, and it is reached without impersonation, OAuth and SSH tunnel.

Between two queries the session is reset: `DISCARD ALL` ends what the last one left (settings, role, search_path, temporary
tables, prepared statements, cursors, advisory locks, LISTEN), after its transaction has ended; a session that does not take it is
closed. Limits and read-only are set before each statement (`runtime.superset.statement_timeout`), here as on a new connection.
Whoever cancels a query ends its session: so it is kept only after a query that has ended well, and not after one that was
stopped. A cancellation that comes later still ends a read, which is tried again (`runtime.queries.transient_errors`).

A child keeps `MOST` connections, one for each database and way to connect, closes one that was not used for `IDLE_SECONDS`, and
has none for longer than `RECYCLE_SECONDS`.

Replaces `Database._get_sqla_engine`, `create_engine` in `superset.models.core` and `execute_sql_statements` in
`superset.sql_lab`, and listens to SQLAlchemy's events checkout, checkin and reset of a pool (read and tested with Superset 6.1.0,
SQLAlchemy 1.4.54 and psycopg2 2.9.9; no upstream issue known).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from runtime.environment import hooks, versions
from runtime.superset.statement_timeout import KEEP, READ_ONLY
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

logger = logging.getLogger(__name__)

#: Connections that a child keeps.
MOST = 2
#: A connection that was not used for so long is closed.
IDLE_SECONDS = 60.0
#: A connection is made anew after so long: the limits of its role may have changed.
RECYCLE_SECONDS = 300

#: A connection that has waited for longer is tried before it is used.
TRY_SECONDS = 1.0
#: Where a connection's record in the pool has when it was last used.
_USED = "superset_async_used"
#: Whether the engine that is made now is of a database whose connections are kept.
_keeps: ContextVar[bool] = ContextVar("keeps", default=False)


class KeptEngines:
    """This process's engines that keep a connection, by all that they were made of."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Have none: after a fork they are the parent's."""
        self._lock = threading.Lock()
        self._engines: OrderedDict[tuple[str, Hashable], tuple[Engine, float]] = OrderedDict()
        self._thread: threading.Thread | None = None

    def get(self, url: Any, options: dict[str, Any], make: Callable[..., Engine]) -> Engine:
        """The engine of this URL and these options, made by `make` where there is none."""
        key = (url.render_as_string(hide_password=False), frozen(options))
        with self._lock:
            found = self._engines.pop(key, None)
            engine = found[0] if found else keeping(make, url, options)
            self._engines[key] = (engine, self._clock())
            beyond = [self._engines.popitem(last=False)[1][0] for _ in range(len(self._engines) - MOST)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kept connections", daemon=True)
                self._thread.start()
        for dropped in beyond:
            dropped.dispose()
        return engine

    def drop(self) -> None:
        """Close every connection that is not used now, and have the others closed when they are given back."""
        with self._lock:
            engines = [engine for engine, _ in self._engines.values()]
            self._engines.clear()
        for engine in engines:
            engine.dispose()

    def drop_idle(self) -> None:
        """Close what was not used for `IDLE_SECONDS`; what is used now stays."""
        with self._lock:
            now = self._clock()
            idle = [key for key, (_, used) in self._engines.items() if now - used >= IDLE_SECONDS]
            engines = [self._engines.pop(key)[0] for key in idle]
        for engine in engines:
            # A connection that is in use meanwhile is closed when it comes back.
            engine.dispose()

    def _run(self) -> None:
        while True:
            time.sleep(IDLE_SECONDS / 4)
            self.drop_idle()


#: This process's.
kept = KeptEngines()
os.register_at_fork(after_in_child=kept.forget)


def install() -> None:
    """Keep connections in this process, where it is a worker; UntestedVersionError for a Superset of another version."""
    from superset import sql_lab
    from superset.models import core

    versions.require(__name__, "apache-superset", "sqlalchemy")
    if os.environ.get(ROLE_ENV) != "worker":
        return
    hooks.replace(core.Database, "_get_sqla_engine", __name__, _get_sqla_engine)
    hooks.replace(core, "create_engine", __name__, _create_engine)
    hooks.replace(sql_lab, "execute_sql_statements", __name__, _kept_after_success)


def may_keep(database: Any) -> bool:
    """Whether connections to a database of Superset's may be kept, for whoever it is asked."""
    return not (database.impersonate_user or database.ssh_tunnel or database.allow_dml or database.is_oauth2_enabled())


def _get_sqla_engine(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def _get_sqla_engine(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _keeps.set(may_keep(self))
        try:
            return shipped(self, *args, **kwargs)
        finally:
            _keeps.reset(token)

    return _get_sqla_engine


def _create_engine(shipped: Callable[..., Any]) -> Callable[..., Any]:
    from sqlalchemy.pool import NullPool

    def create_engine(url: Any, **options: Any) -> Any:
        said = cast("dict[str, Any]", options.get("execution_options") or {})
        postgres = url.drivername in ("postgresql", "postgresql+psycopg2")
        if not (_keeps.get() and postgres and said.get(KEEP) is True and said.get(READ_ONLY) is True):
            return shipped(url, **options)
        if options.get("poolclass") is not NullPool:
            return shipped(url, **options)
        return kept.get(url, options, shipped)

    return create_engine


def keeping(make: Callable[..., Engine], url: Any, options: dict[str, Any]) -> Engine:
    """An engine, made by `make` of `url` and `options`, that keeps one connection and resets its session each time."""
    from sqlalchemy import event
    from sqlalchemy.pool import QueuePool

    own = {
        "poolclass": QueuePool,
        "pool_size": 1,
        # A task that needs a second one at once gets it, and it is closed afterwards.
        "max_overflow": -1,
        "pool_recycle": RECYCLE_SECONDS,
        "pool_reset_on_return": None,
    }
    engine = make(url, **{**options, **own})
    event.listen(engine, "checkout", try_if_old)
    event.listen(engine, "checkin", note)
    event.listen(engine, "reset", reset)
    return engine


def note(_connection: object, record: Any) -> None:
    """SQLAlchemy's event checkin: the server has answered just now."""
    record.info[_USED] = time.monotonic()


def try_if_old(connection: Any, record: Any, _proxy: object) -> None:
    """SQLAlchemy's event checkout: a connection that has waited for a while may have been closed at its other end."""
    import psycopg2
    from psycopg2 import extensions
    from sqlalchemy import exc

    if time.monotonic() - record.info.get(_USED, float("inf")) < TRY_SECONDS or _USED not in record.info:
        return
    try:
        with extensions.connection.cursor(connection, cursor_factory=extensions.cursor) as cursor:
            cursor.execute("SELECT 1")
        connection.rollback()
    except psycopg2.Error as error:
        raise exc.DisconnectionError(str(error)) from error


def frozen(value: Any) -> Hashable:
    """What an engine is made of, as a key: equal only where all of it is the same."""
    if isinstance(value, dict):
        return tuple(sorted((str(key), frozen(each)) for key, each in cast("dict[Any, Any]", value).items()))
    if isinstance(value, list | tuple):
        return tuple(frozen(each) for each in cast("list[Any]", value))
    try:
        hash(value)
    except TypeError:
        return id(value)
    return cast(Hashable, value)


def reset(proxy: Any, _record: object) -> None:
    """SQLAlchemy's event reset: end the transaction and all that outlives one. What it raises closes the connection."""
    from psycopg2 import extensions

    connection: Any = proxy.dbapi_connection
    connection.rollback()
    # Whoever cancels the last query must not meet the next one.
    connection.tag = ""
    connection.autocommit = True
    try:
        # Past the guard: its settings would be the next session's.
        with extensions.connection.cursor(connection, cursor_factory=extensions.cursor) as cursor:
            cursor.execute("DISCARD ALL")
            if not str(connection.get_parameter_status("DateStyle")).startswith("ISO"):
                # As psycopg2 sets it when it connects: it reads dates in no other form.
                cursor.execute("SET DateStyle TO 'ISO'")
    finally:
        connection.autocommit = False
    connection.notices.clear()
    connection.notifies.clear()


def _kept_after_success(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def execute_sql_statements(*args: Any, **kwargs: Any) -> Any:
        ended_well = False
        try:
            payload = shipped(*args, **kwargs)
            # Nothing for a query whose rows are stored: its user fetches them.
            ended_well = payload is None or payload.get("status") == "success"
            return payload
        finally:
            if not ended_well:
                kept.drop()

    return execute_sql_statements
