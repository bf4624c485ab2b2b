"""What makes two charts' data the same: whoever it was computed as, and one order in every process.

As shipped (6.1.0) the additional parts of a cache key come in the order of a set, which differs between processes: a browser is
told by a worker that its chart is ready, and the web process looks under another name. And where a database is queried as the
user (impersonation) the user is no part of the key, unless a feature flag says so, and never for charts of the older kind: one
user is given what the database showed to another. Caches, single flight and followers all go by these keys.

Replaces `get_extra_cache_keys` of `superset.connectors.sqla.models.SqlaTable` and `superset.models.sql_lab.Query` (read and
tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from runtime.environment import hooks, versions

#: Begins the part of a key that says as whom a database is queried.
IMPERSONATED = "superset_async_as:"


def install() -> None:
    """Have this process make such keys; UntestedVersionError for a Superset of another version."""
    from superset.connectors.sqla.models import SqlaTable
    from superset.models.sql_lab import Query

    versions.require(__name__)
    for owner in (SqlaTable, Query):
        hooks.replace(owner, "get_extra_cache_keys", __name__, _with_identity)


def ordered(keys: Iterable[Any]) -> list[Any]:
    """`keys`, each once, in an order that is the same in every process."""
    return sorted(set(keys), key=lambda key: (type(key).__name__, repr(key)))


def _with_identity(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def get_extra_cache_keys(self: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return ordered([*shipped(self, *args, **kwargs), *_impersonated(self.database)])

    return get_extra_cache_keys


def _impersonated(database: Any) -> list[str]:
    """As whom the current request or task queries `database`: nothing where it is queried as the same role for everyone."""
    from flask import g

    if not database.impersonate_user:
        return []
    user = getattr(g, "user", None)
    # A guest's token may name it like a user.
    kind = "guest" if getattr(user, "is_guest_user", False) else "user"
    return [f"{IMPERSONATED}{kind}:{getattr(user, 'username', None)!r}"]
