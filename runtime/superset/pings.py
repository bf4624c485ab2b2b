"""A connection to the metadata database is tried once when it is checked out of the pool, where it was not used just now.

As shipped (Superset 6.1) each one is tried twice where the pool tries it too (`pool_pre_ping`, which `runtime.config.metadata`
sets): Superset's own listener does it again, with a statement in a transaction. What a server that went away meanwhile leaves to
be noticed by a statement are connections that were used within the last `TRUSTED_SECONDS`; the first such statement has the pool
close all that are as old.

Replaces `pessimistic_connection_handling` in `superset.initialization`, called before the application is there, and `do_ping` of
the engine's dialect (read and tested with 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known. A plain defect there: the
listener should not be added where the pool pings).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from runtime.environment import hooks, versions

#: A connection that was given back so short a time ago is used again as it is. Servers do not restart in it.
TRUSTED_SECONDS = 1.0


def install() -> None:
    """Have this process's pool alone try connections; UntestedVersionError for a Superset of another version."""
    from superset import initialization

    versions.require(__name__, "apache-superset", "sqlalchemy")
    hooks.replace(initialization, "pessimistic_connection_handling", __name__, _where_the_pool_does_not)


def _where_the_pool_does_not(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def pessimistic_connection_handling(some_engine: Any) -> None:
        if some_engine.pool._pre_ping:
            trust_what_was_used(some_engine)
        else:
            shipped(some_engine)

    return pessimistic_connection_handling


def trust_what_was_used(engine: Any, clock: Callable[[], float] = time.monotonic) -> None:
    """Have the pool of `engine` not try what was given back to it within the last `TRUSTED_SECONDS` by `clock`."""
    from sqlalchemy import event

    used: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
    ping = engine.dialect.do_ping

    def note(connection: Any, _record: object) -> None:
        # None: it was closed for an error.
        if connection is not None:
            used[connection] = clock()

    def do_ping(connection: Any) -> bool:
        return clock() - used.get(connection, float("-inf")) < TRUSTED_SECONDS or bool(ping(connection))

    event.listen(engine, "checkin", note)
    engine.dialect.do_ping = do_ping
