"""A connection to the metadata database is tried once when it is checked out of the pool.

As shipped (Superset 6.1) each one is tried twice where the pool tries it too (`pool_pre_ping`, which `runtime.config.metadata`
sets): Superset's own listener does it again, with a statement in a transaction.

Replaces `pessimistic_connection_handling` in `superset.initialization`, called before the application is there (read and tested
with 6.1.0; no upstream issue known. A plain defect there: the listener should not be added where the pool pings).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.environment import hooks, versions


def install() -> None:
    """Have this process's pool alone try connections; UntestedVersionError for a Superset of another version."""
    from superset import initialization

    versions.require(__name__)
    hooks.replace(initialization, "pessimistic_connection_handling", __name__, _where_the_pool_does_not)


def _where_the_pool_does_not(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def pessimistic_connection_handling(some_engine: Any) -> None:
        if not some_engine.pool._pre_ping:
            shipped(some_engine)

    return pessimistic_connection_handling
