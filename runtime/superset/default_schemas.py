"""A database's default schema, asked once in a few seconds and not by each chart.

As shipped (Superset 6.1) each chart's cache key asks its database for its default schema, on a connection of its own: the charts
of a dashboard, opened by many at once, wait for one another at that. Of those who ask at the same moment one does so now, and the
others have its answer, for `SECONDS`. A change of a role's search path is seen as late.

Replaces `get_default_schema` of `superset.models.core.Database` (read and tested with Superset 6.1.0; no upstream issue known).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cachetools import TTLCache, cached

from runtime.environment import hooks, versions

#: As long as what is known of a user (`runtime.superset.known_users`).
SECONDS = 5.0
#: Databases, catalogs and, under impersonation, users.
MOST = 1000


def install() -> None:
    """Have this process ask so; UntestedVersionError for a Superset of another version."""
    from superset.models.core import Database

    versions.require(__name__)
    hooks.replace(Database, "get_default_schema", __name__, _kept)


def _kept(shipped: Callable[..., Any]) -> Callable[..., Any]:
    condition = threading.Condition()

    @cached(TTLCache(MOST, SECONDS), key=_identity, condition=condition)
    def kept(database: Any, catalog: str | None) -> str | None:
        found: str | None = shipped(database, catalog)
        return found

    def get_default_schema(self: Any, catalog: str | None) -> str | None:
        # One that is not stored yet has nothing that tells it from another.
        return shipped(self, catalog) if self.id is None else kept(self, catalog)

    return get_default_schema


def _identity(database: Any, catalog: str | None) -> tuple[Any, ...]:
    """Whose answer it is: a changed database's is another, and each impersonated user's his own."""
    from superset.utils.core import get_username

    user = get_username() if database.impersonate_user else None
    return database.id, database.changed_on, catalog, user
