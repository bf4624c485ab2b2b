"""Connections to analytic databases, of whatever driver: a failure that passes by itself leaves the task that met it.

Leans on SQLAlchemy's event do_connect (tested with 1.4), and on `superset.extensions.db` to know the metadata database's own.

(Read with SQLAlchemy 1.4.54 and Superset 6.1.0; no upstream issue known.)
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine

from runtime.environment import versions
from runtime.queries import transient_errors

versions.require(__name__, "apache-superset", "sqlalchemy")


def install() -> None:
    """Have this process's connections to analytic databases go through `connect`."""
    if not event.contains(Engine, "do_connect", connect):
        event.listen(Engine, "do_connect", connect)


def connect(dialect: Dialect, record: object, arguments: list[Any], options: dict[str, Any]) -> object:
    """SQLAlchemy's event do_connect: connect as it would, and leave a transient failure to the task's wrapper."""
    if not transient_errors.at_work() or dialect is _metadata_dialect():
        return None
    try:
        return dialect.connect(*arguments, **options)
    except Exception as error:
        transient_errors.met(error)
        raise


def _metadata_dialect() -> Dialect:
    from superset.extensions import db

    return db.engine.dialect
