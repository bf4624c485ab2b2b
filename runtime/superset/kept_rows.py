"""Rows that a request or a task goes on with after it has committed, instead of reading them again.

As shipped (Superset 6.1) every row is read anew after each commit: a submission reads its user four times, a worker's task its
query nine times. What is kept here is what a request or a task takes for the same until it ends: its user with roles and
groups, the database, and in a worker the dataset; and a query's row, of which only its state may be written by others. Whoever
decides by that state asks for it (`runtime.superset.stops`, and `refresh` before each statement); a rollback forgets every row,
as shipped, and so does the end of the request or the task.

Sets `expire_on_commit` of Superset's sessions, listens to SQLAlchemy's event after_commit, which expires the others, and replaces
`get_query` in `superset.sql_lab` (read and tested with Superset 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from runtime.environment import hooks, versions
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def install() -> None:
    """Keep rows in this process, where it is a web process or a worker; UntestedVersionError for another Superset."""
    from sqlalchemy import event
    from superset import sql_lab
    from superset.extensions import db

    versions.require(__name__, "apache-superset", "sqlalchemy")
    if os.environ.get(ROLE_ENV) not in ("web", "worker") or event.contains(db.session, "after_commit", committed):
        return
    session: Any = db.session
    session.remove()
    session.configure(expire_on_commit=False)
    event.listen(db.session, "after_commit", committed)
    hooks.replace(sql_lab, "get_query", __name__, _known_query)


def _known_query(shipped: Callable[..., Any]) -> Callable[..., Any]:
    """A query whose row the session has: SQLAlchemy would read it, and keep what it has."""
    from sqlalchemy import inspect
    from sqlalchemy.orm.util import identity_key
    from superset.extensions import db
    from superset.models.sql_lab import Query

    def get_query(query_id: int) -> Query:
        session: Any = db.session
        known = session.identity_map.get(identity_key(Query, query_id))
        state: Any = inspect(known, raiseerr=False)
        return shipped(query_id=query_id) if state is None or state.expired or state.expired_attributes else known

    return get_query


def committed(session: Session) -> None:
    """SQLAlchemy's event after_commit: expire what is not kept."""
    if session.in_nested_transaction():
        return
    kept = _kept()
    for row in list(session.identity_map.values()):
        if not isinstance(row, kept):
            session.expire(row)


@cache
def _kept() -> tuple[type, ...]:
    from superset.connectors.sqla.models import SqlaTable, SqlMetric, TableColumn
    from superset.databases.ssh_tunnel.models import SSHTunnel
    from superset.extensions import security_manager
    from superset.models.core import Database
    from superset.models.sql_lab import Query

    manager: Any = security_manager
    people = (manager.user_model, manager.role_model, manager.group_model)
    datasets = (SqlaTable, TableColumn, SqlMetric) if os.environ.get(ROLE_ENV) == "worker" else ()
    return (*people, Database, SSHTunnel, Query, *datasets)
