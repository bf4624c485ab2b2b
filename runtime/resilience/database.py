"""Short transactions in the metadata database that disturb no session of Superset's.

A worker's child uses the pool of its Superset before and after a task, when no session holds a connection. Its parent process
opens a connection each time and closes it: a pooled one would be inherited by the next child that is forked.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

#: Nothing here waits longer for a row that another transaction has locked.
LOCK_SECONDS = 5


@contextmanager
def transaction() -> Generator[Any]:
    """A connection of SQLAlchemy's, committed at the end of the block. Raises SQLAlchemy's errors."""
    with _engine(os.getpid()).begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        yield connection


def is_away(error: BaseException) -> bool:
    """Whether `error`, of a transaction, says that the database cannot be used now and may be in a moment."""
    errors = import_module("sqlalchemy.exc")
    return isinstance(error, errors.OperationalError | errors.InterfaceError | errors.TimeoutError) or bool(
        getattr(error, "connection_invalidated", False)
    )


@lru_cache(maxsize=1)
def _engine(pid: int) -> Any:
    app = import_module("superset.tasks.celery_app").flask_app
    if pid == _parent[0]:
        alchemy = import_module("sqlalchemy")
        return alchemy.create_engine(
            app.config["SQLALCHEMY_DATABASE_URI"],
            poolclass=import_module("sqlalchemy.pool").NullPool,
            connect_args=app.config["SQLALCHEMY_ENGINE_OPTIONS"]["connect_args"],
        )
    with app.app_context():
        return import_module("superset.extensions").db.engine


#: The process id of a worker's parent, once this is one; 0 before.
_parent = [0]


def is_parent() -> None:
    """Say that this process forks children: its connections are not kept."""
    _parent[0] = os.getpid()
    _engine.cache_clear()
