"""The metadata database: where it is, and short transactions in it that disturb no session of Superset's.

A worker's child uses the pool of its Superset before and after a task, when no session holds a connection. Its parent process
opens a connection each time and closes it: a pooled one would be inherited by the next child that is forked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

from runtime.environment import metadata_password, process_topology, secrets
from runtime.environment.metadata_password import PasswordUnreadable
from runtime.environment.secrets import Secrets
from topology import server_tls
from topology.model import Topology

if TYPE_CHECKING:
    from sqlalchemy.engine import CursorResult, Engine

#: Nothing here waits longer for a row that another transaction has locked.
LOCK_SECONDS = 5
#: PostgreSQL's error code for it (its manual, appendix A).
DISK_FULL = "53100"


class Connection(Protocol):
    """What this project asks of a connection of SQLAlchemy's: statements as psycopg2 takes them, with `%s` and a tuple.

    The types that there are of SQLAlchemy 1.4 know no tuples here.
    """

    def exec_driver_sql(self, statement: str, parameters: Any = ...) -> CursorResult:
        """The result of a statement; raises SQLAlchemy's errors."""
        ...


def uri(topology: Topology, secrets: Secrets) -> str:
    """SQLAlchemy URL of the metadata database, its password quoted; without one where AWS keeps it (`give_password`)."""
    return libpq(topology, secrets.postgres_password).replace("postgresql:", "postgresql+psycopg2:", 1)


def libpq(topology: Topology, password: str | None) -> str:
    """URL of the metadata database as PostgreSQL's own clients take it, the password quoted.

    Where the topology says whose certificate the server shows, it says so too: a server that shows another is not spoken to.
    """
    server = topology.postgres
    user = quote(server.user, safe="") + ("" if password is None else f":{quote(password, safe='')}")
    verified = f"?{urlencode(server_tls.libpq_options(server.tls))}" if server.tls else ""
    return f"postgresql://{user}@{server.host}:{server.port}/{server.database}{verified}"


def connect_args(application_name: str) -> dict[str, object]:
    """libpq's parameters: named in pg_stat_activity, and a dead server is noticed within about half a minute."""
    return {
        "application_name": application_name,
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


def connect(topology: Topology, env: Mapping[str, str], application_name: str, **options: Any) -> Any:
    """A connection of psycopg2's to the metadata database; its errors, and those of `metadata_password.log_in`."""
    import psycopg2

    url = libpq(topology, None)
    arguments: dict[str, Any] = {**connect_args(application_name), **options}
    return metadata_password.log_in(topology, env, lambda password: psycopg2.connect(url, password=password, **arguments))


def give_password(topology: Topology, env: Mapping[str, str]) -> None:
    """Have every engine that this process makes for the metadata database log in with the password that AWS keeps.

    Superset, its migrations and Celery's result backend make engines of their own from the URL: SQLAlchemy asks here before each
    log-in (its event `do_connect`). Nothing to do where the URL has the password. To be called once, before the first engine.
    """
    server = topology.postgres
    if server.password_secret_arn is None:
        return
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def log_in(dialect: Any, record: object, arguments: Any, parameters: dict[str, Any]) -> Any:
        asked = tuple(parameters.get(key) for key in ("host", "port", "user", "password"))
        if asked != (server.host, server.port, server.user, None):
            return None
        try:
            return metadata_password.log_in(
                topology, env, lambda password: dialect.connect(*arguments, **parameters, password=password)
            )
        except PasswordUnreadable as error:
            # Like a server that is away: whoever waits for it, or tries again, does so.
            raise dialect.dbapi.OperationalError(str(error)) from error

    event.listen(Engine, "do_connect", log_in)


@contextmanager
def transaction() -> Generator[Connection]:
    """A connection of SQLAlchemy's, committed at the end of the block. Raises SQLAlchemy's errors."""
    with _engine(os.getpid()).begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        yield connection


@contextmanager
def connection() -> Generator[Connection]:
    """A connection of SQLAlchemy's for the length of the block, in which nothing is committed. Raises SQLAlchemy's errors."""
    with _engine(os.getpid()).connect() as opened:
        yield opened


def is_away(error: BaseException) -> bool:
    """Whether `error`, of a transaction, says that the database cannot be used now and may be in a moment."""
    from sqlalchemy import exc

    return isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError) or bool(
        getattr(error, "connection_invalidated", False)
    )


def is_full(error: BaseException) -> bool:
    """Whether `error`, of a transaction, says that the database has no room on its disk."""
    return getattr(getattr(error, "orig", None), "pgcode", None) == DISK_FULL


#: Gives the pooled engine of this process's Superset, once `use_pool_of` was called.
_pooled: list[Callable[[], Engine]] = []


def use_pool_of(engine: Callable[[], Engine]) -> None:
    """Have transactions of this process, and of those forked from it, use the engine that `engine` returns."""
    _pooled[:] = [engine]
    _engine.cache_clear()


@lru_cache(maxsize=1)
def _engine(pid: int) -> Engine:
    if pid != _parent[0]:
        return _pooled[0]()
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    topology = process_topology.started()
    return create_engine(
        uri(topology, secrets.read(topology, os.environ)),
        poolclass=NullPool,
        connect_args=connect_args(f"superset-{process_topology.role(os.environ)}"),
    )


#: The process id of a worker's parent, once this is one; 0 before.
_parent = [0]


def is_parent() -> None:
    """Say that this process forks children: its connections are not kept."""
    _parent[0] = os.getpid()
    _engine.cache_clear()
