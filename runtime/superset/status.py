"""The state of queries, as browsers poll for it: one statement for each request, and Superset's own view of its answer.

As shipped (Superset 6.1) a poll builds the query's model, its database's with all of its columns, and each relationship anew.
Here the columns that the answer has are read as a row, by the same filters; what the view makes of it (permissions, labels, JSON)
is Superset's. What asks for other columns, or has other filters, goes the shipped way.

Replaces `QueryRestApi.datamodel.get` and `QueryDAO.get_queries_changed_after`, and leans on the columns of the tables query and
dbs (read and tested with Superset 6.1.0, Flask-AppBuilder 5.0.2 and SQLAlchemy 1.4.54; no upstream issue known. Superset 7 polls
tasks of its Global Task Framework instead: its pull request 43928).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from flask import current_app

from runtime.environment import hooks, versions

if TYPE_CHECKING:
    from sqlalchemy.sql import Select


def install() -> None:
    """Answer polls of this process so; UntestedVersionError for a Superset of another version."""
    from superset.daos.query import QueryDAO
    from superset.queries.api import QueryRestApi

    versions.require(__name__, "apache-superset", "flask-appbuilder", "sqlalchemy")
    hooks.replace(QueryRestApi.datamodel, "get", __name__, _get)
    hooks.replace(QueryDAO, "get_queries_changed_after", __name__, _changed_after)


def _get(shipped: Callable[..., Any]) -> Callable[..., Any]:
    from superset.extensions import db, security_manager
    from superset.queries.api import QueryRestApi
    from superset.utils.core import get_user_id

    def get(id: Any, filters: Any = None, select_columns: Any = None, outer_default_load: bool = False) -> Any:
        if not (_is_polled(QueryRestApi, filters, select_columns) and isinstance(id, int)):
            return shipped(id, filters, select_columns, outer_default_load)
        table = _tables()[0]
        asked = _statement().where(table.c.id == id)
        if not security_manager.can_access_all_queries():
            asked = asked.where(table.c.user_id == get_user_id())
        row = db.session.execute(asked).first()
        return Row(row) if row else None

    return get


def _is_polled(api: Any, filters: Any, select_columns: Sequence[str] | None) -> bool:
    """Whether it is the poll of a browser: the view's own columns by the view's own filter, and a URL that nothing transforms."""
    from superset.queries.filters import QueryFilter

    return (
        filters is not None
        and [type(each) for each in filters.filters] == [QueryFilter]
        and select_columns is not None
        and set(select_columns) <= {*api.show_columns}
        and not transforms_urls()
    )


def transforms_urls() -> bool:
    """Whether a function of the team's own makes URLs of trackers, of a query as Superset's model has it."""
    # By where it was written: once a team has set its own, Superset's configuration module has that under the same name.
    made_in = getattr(current_app.config["TRACKING_URL_TRANSFORMER"], "__module__", None)
    return made_in != "superset.config"


def _changed_after(shipped: Callable[..., Any]) -> Callable[..., Any]:
    from superset.extensions import db
    from superset.utils.core import get_user_id

    def get_queries_changed_after(last_updated_ms: float) -> list[Any]:
        if transforms_urls():
            return list(shipped(last_updated_ms))
        table = _tables()[0]
        since = datetime.fromtimestamp(last_updated_ms / 1000, UTC).replace(tzinfo=None)
        asked = _statement().where(table.c.user_id == get_user_id(), table.c.changed_on >= since)
        return [Row(each) for each in db.session.execute(asked)]

    return get_queries_changed_after


@cache
def _tables() -> tuple[Any, Any, Any]:
    from superset.extensions import security_manager
    from superset.models.core import Database
    from superset.models.sql_lab import Query

    models: tuple[Any, ...] = (Query, Database, security_manager.user_model)
    query, database, user = (model.__table__ for model in models)
    return query, database, user


@cache
def _statement() -> Select:
    """Each query's columns, with the name of its database and of its user."""
    from sqlalchemy import select

    query, database, user = _tables()
    of_database = [database.c.database_name.label("database_name")]
    of_user = [user.c[name].label(f"user_{name}") for name in ("first_name", "last_name", "username")]
    joined = query.outerjoin(database, database.c.id == query.c.database_id).outerjoin(user, user.c.id == query.c.user_id)
    columns: list[Any] = [*query.c, *of_database, *of_user]
    return select(*columns).select_from(joined)


class Row(SimpleNamespace):
    """A query as its views read it: the attributes of Superset's model, its database's name and its user's."""

    def __init__(self, row: Any) -> None:
        found: dict[str, Any] = dict(row._mapping)
        database = SimpleNamespace(id=found["database_id"], database_name=found.pop("database_name"))
        user = SimpleNamespace(**{name: found.pop(f"user_{name}") for name in ("first_name", "last_name", "username")})
        super().__init__(
            **found,
            database=database if found["database_id"] is not None else None,
            user=user if found["user_id"] is not None else None,
        )

    @property
    def extra(self) -> dict[str, Any]:
        """As Superset's model reads it of its JSON."""
        from superset.models.sql_lab import Query

        return cast(Any, Query.extra).fget(self)

    def to_dict(self) -> dict[str, Any]:
        """What Superset's model makes of itself."""
        from superset.models.sql_lab import Query

        return Query.to_dict(self)  # type: ignore[arg-type]
