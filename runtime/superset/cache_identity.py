"""What makes two charts' data the same: whoever it was computed as, and one order in every process.

As shipped (6.1.0) the additional parts of a cache key come in the order of a set, which differs between processes: a browser is
told by a worker that its chart is ready, and the web process looks under another name. And where a database is queried as the
user (impersonation) the user is no part of the key, unless a feature flag says so, and never for charts of the older kind: one
user is given what the database showed to another. Of a dataset of SQL, the rules of rows are a part without the tables that they
are of: who may see the north of one table is given the rows of who may see the north of another. And where that SQL cannot be
parsed before its template is rendered, they are none. Caches, single flight and followers all go by these keys.

Replaces `get_extra_cache_keys` of `superset.connectors.sqla.models.SqlaTable` and `superset.models.sql_lab.Query`, and
`superset.utils.rls.collect_rls_predicates_for_sql` (read and tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from runtime.environment import hooks, versions

#: Begins the part of a key that says as whom a database is queried, and the one that says whose rules of rows hold.
IMPERSONATED, RULES_OF = "superset_async_as:", "superset_async_rules_of:"


def install() -> None:
    """Have this process make such keys; UntestedVersionError for a Superset of another version."""
    from superset.connectors.sqla.models import SqlaTable
    from superset.models.sql_lab import Query
    from superset.utils import rls

    versions.require(__name__)
    hooks.replace(rls, "collect_rls_predicates_for_sql", __name__, lambda _: _rules_of_tables)
    for owner in (SqlaTable, Query):
        hooks.replace(owner, "get_extra_cache_keys", __name__, _with_identity)


def ordered(keys: Iterable[Any]) -> list[Any]:
    """`keys`, each once, in an order that is the same in every process."""
    return sorted(set(keys), key=lambda key: (type(key).__name__, repr(key)))


def _with_identity(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def get_extra_cache_keys(self: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return ordered([*shipped(self, *args, **kwargs), *_impersonated(self.database)])

    return get_extra_cache_keys


def _rules_of_tables(sql: str, database: Any, catalog: str | None, schema: str) -> list[str]:
    """The rules of rows that hold for the tables in `sql`, each with its table; whose they are where it cannot be parsed.

    Superset's function with these arguments, which are those of a dataset of SQL before its template is rendered.
    """
    from superset.exceptions import SupersetParseError
    from superset.sql.parse import SQLScript
    from superset.utils.rls import get_predicates_for_table

    try:
        statements = SQLScript(sql, engine=database.db_engine_spec.engine).statements
    except SupersetParseError:
        return [f"{RULES_OF}{_current()}"]
    tables = {table.qualify(catalog=catalog, schema=schema) for statement in statements for table in statement.tables}
    default_catalog = database.get_default_catalog()
    return ordered(
        f"{table}: {rule}" for table in tables for rule in get_predicates_for_table(table, database, default_catalog)
    )


def _impersonated(database: Any) -> list[str]:
    """As whom the current request or task queries `database`: nothing where it is queried as the same role for everyone."""
    return [f"{IMPERSONATED}{_current()}"] if database.impersonate_user else []


def _current() -> str:
    """Who the current request or task works for."""
    from flask import g

    user: Any = getattr(g, "user", None)
    if getattr(user, "is_guest_user", False):
        # A guest's token may name it like a user, and has its rules.
        return f"guest:{user.username!r} {user.guest_token.get('rls_rules')!r}"
    return f"user:{getattr(user, 'username', None)!r}"
