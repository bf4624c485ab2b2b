"""A statement of PostgreSQL is cancelled from outside by what only it has, and is said to be cancelled once it is seen gone.

As shipped (Superset 6.1) it is the number of its backend alone: by the time of the stop that may be a stranger's process, or the
same session with another user's query, and nobody looks whether it has ended. Here a query's session carries a tag of its own
while it executes (`application_name`, which a statement may not change), set in each transaction: so behind a pooler in
transaction mode the tag goes where the query goes. It is cancelled where number, start of the backend and tag are all its own.

A query that a process of an older version began is known by a number alone: it is not cancelled, and ends by its limit. Databases
of other engines and drivers are cancelled as shipped.

Replaces `PostgresEngineSpec.get_cancel_query_id` and `cancel_query` (read and tested with Superset 6.1.0 and PostgreSQL 14 and
newer; no upstream issue known).
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from runtime.environment import hooks, versions

logger = logging.getLogger(__name__)

#: How long a cancellation waits to see its session gone, and how often it looks.
SEEN_SECONDS, LOOK_SECONDS = 4.0, 0.05
#: What a query is cancelled by: number and start (seconds since the epoch) of its backend, and its tag.
_IDENTITY = re.compile(r"(\d+) ([\d.]+) (superset-async-\d+-[0-9a-f]+)")
_STARTED = "extract(epoch FROM backend_start)::text"
_ITS = f"FROM pg_stat_activity WHERE pid = %s AND {_STARTED} = %s AND application_name = %s AND pid <> pg_backend_pid()"


def install() -> None:
    """Have this process cancel so; UntestedVersionError for a Superset of another version."""
    from superset.db_engine_specs.postgres import PostgresEngineSpec

    versions.require(__name__, "apache-superset")
    hooks.replace(PostgresEngineSpec, "get_cancel_query_id", __name__, _identified)
    hooks.replace(PostgresEngineSpec, "cancel_query", __name__, _seen_gone)


def tag(query_id: int) -> str:
    """A name for the session of a query while it executes; another one each time (PostgreSQL keeps 63 characters)."""
    return f"superset-async-{query_id}-{secrets.token_hex(8)}"


def identity(cursor: Any, query_id: int) -> str:
    """Tag the session of `cursor`, which has a guard, for a query, and give what the query is cancelled by."""
    name = tag(query_id)
    cursor.connection.tag = name
    cursor.execute(f"SELECT pid, {_STARTED} FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    pid, started = cursor.fetchone()
    return f"{pid} {started} {name}"


def cancel(cursor: Any, identity: object) -> bool:
    """End the session that has this identity, from a session of its own; whether one was found, and was seen gone.

    False for what is no identity, and where the session is not found: its statement has ended. Raises what the driver raises.
    """
    found = _IDENTITY.fullmatch(str(identity))
    if found is None:
        return False
    cursor.execute(f"SELECT pg_terminate_backend(pid) {_ITS}", found.groups())
    if cursor.fetchone() is None:
        return False
    until = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < until:
        # Within one transaction a server shows what it showed first.
        cursor.connection.rollback()
        cursor.execute(f"SELECT count(*) {_ITS}", found.groups())
        if cursor.fetchone() == (0,):
            return True
        time.sleep(LOOK_SECONDS)
    logger.warning("the session of %s was told to end, and was not seen gone within %.0f s", found[3], SEEN_SECONDS)
    return False


def _is_guarded(cursor: Any) -> bool:
    return hasattr(getattr(cursor, "connection", None), "tag")


def _identified(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def get_cancel_query_id(cursor: Any, query: Any) -> Any:
        return identity(cursor, query.id) if _is_guarded(cursor) else shipped(cursor, query)

    return get_cancel_query_id


def _seen_gone(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def cancel_query(cursor: Any, query: Any, cancel_query_id: Any) -> bool:
        return cancel(cursor, cancel_query_id) if _is_guarded(cursor) else shipped(cursor, query, cancel_query_id)

    return cancel_query
