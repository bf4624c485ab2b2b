"""What Superset knows of people, queries and datasets, remembered for a minute. Needs Superset's application context.

Each is asked for at every submission, and by the caches at every read and write: a look-up in the metadata database for each
would cost more than the rest of the routing.

Leans on Superset's security manager and on the models Query, Database and SqlaTable (read and tested with 6.1.0; no upstream
issue known). Its version is asked for where `runtime.superset.implementation` is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from runtime.tenants.recognition import Person

if TYPE_CHECKING:
    from flask_appbuilder.security.sqla.models import User

#: For how long a user's name and roles, and a database's name, are taken for the same.
REMEMBERED_SECONDS = 60

T = TypeVar("T")


def remembered(look_up: Callable[..., T]) -> Callable[..., T]:
    """`look_up` with its answers kept for at most `REMEMBERED_SECONDS`; an error is not kept."""

    @lru_cache(maxsize=4096)
    def kept(period: int, *arguments: Hashable) -> T:
        return look_up(*arguments)

    return lambda *arguments: kept(int(time.monotonic() // REMEMBERED_SECONDS), *arguments)


class SupersetDirectory:
    """The directory of the running Superset."""

    def user(self, user_id: int) -> Person:
        """The user with this id; somebody without name and roles for an unknown one."""
        return _user(user_id)

    def named(self, username: str) -> Person:
        """The user of this name; without roles for an unknown one."""
        return _named(username)

    def guest(self, token: Mapping[str, Any]) -> Person:
        """The embedded guest with this token, and the role that all guests have."""
        return Person(roles=frozenset({_config("GUEST_ROLE_NAME")}), guest=token)

    def anonymous(self) -> Person:
        """Whoever is not logged in, with the public role where Superset has one."""
        public = _config("AUTH_ROLE_PUBLIC")
        return Person(roles=frozenset({public} if public else ()))

    def database_of_query(self, query_id: int) -> str | None:
        """The name of the database that SQL Lab's query reads; None for an unknown query."""
        return _database_of_query(query_id)

    def database_of_chart(self, form_data: Mapping[str, Any]) -> str | None:
        """The name of the database of a chart's dataset or query; None where it has neither."""
        source = form_data.get("datasource")
        if isinstance(source, Mapping):
            described = cast("Mapping[str, object]", source)
            source_id, kind = str(described.get("id")), str(described.get("type"))
        else:
            # The older form of a chart: 12__table.
            source_id, _, kind = str(source).partition("__")
        if kind not in ("table", "query") or not source_id.isdecimal():
            return None
        return _database_of_table(int(source_id)) if kind == "table" else _database_of_query(int(source_id))


def _config(name: str) -> str:
    from flask import current_app

    return str(current_app.config[name] or "")


def _person(user: User | None) -> Person:
    if user is None:
        return Person()
    from superset.extensions import security_manager

    roles = security_manager.get_user_roles(user)
    return Person(username=user.username, roles=frozenset(role.name for role in roles))


@remembered
def _user(user_id: int) -> Person:
    from superset.extensions import db, security_manager

    # What the request has changed so far is written when it says so, not when we look something up.
    with db.session.no_autoflush:
        return _person(security_manager.get_user_by_id(user_id))


@remembered
def _named(username: str) -> Person:
    from superset.extensions import db, security_manager

    with db.session.no_autoflush:
        found = _person(security_manager.find_user(username))
    return found if found.username else Person(username=username)


@remembered
def _database_of_query(query_id: int) -> str | None:
    from superset.models.sql_lab import Query

    return _database_name(_scalar(Query.database_id, Query.id == query_id))


@remembered
def _database_of_table(table_id: int) -> str | None:
    from superset.connectors.sqla.models import SqlaTable

    return _database_name(_scalar(SqlaTable.database_id, SqlaTable.id == table_id))


@remembered
def _database_name(database_id: int | None) -> str | None:
    from superset.models.core import Database

    return (
        cast("str | None", _scalar(Database.database_name, Database.id == database_id)) if database_id is not None else None
    )


def _scalar(column: Any, condition: Any) -> Any:
    from superset.extensions import db

    with db.session.no_autoflush:
        return db.session.query(column).filter(condition).scalar()
