"""A connection to the metadata database is tried once when it is checked out of the pool, where it was not used just now.

As shipped (Superset 6.1) each one is tried twice where the pool tries it too (`pool_pre_ping`, which `runtime.config.metadata`
sets): Superset's own listener does it again, with a statement in a transaction. One that was used within the last
`TRUSTED_SECONDS` is not tried, unless its server has said something meanwhile: its end is such a thing, and is seen unasked.

Replaces `pessimistic_connection_handling` in `superset.initialization`, called before the application is there, and `do_ping` of
the engine's dialect (read and tested with 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known. A plain defect there: the
listener should not be added where the pool pings).
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from runtime.environment import hooks, versions

#: A connection that was given back so short a time ago is used again as it is: too short for a network to lose one unseen.
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
        just_now = clock() - used.get(connection, float("-inf")) < TRUSTED_SECONDS
        return (just_now and _says_nothing(connection)) or bool(ping(connection))

    event.listen(engine, "checkin", note)
    engine.dialect.do_ping = do_ping


def _says_nothing(connection: Any) -> bool:
    """Whether nothing has come from the server of a connection that nobody uses: neither its end, nor why."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return not waiting.poll(0)
