"""For whom a request works, as the bound of queries in flight counts: a user, an embedded guest, or a visitor.

Leans on `superset.extensions` (`security_manager`, `async_query_manager`) and on the columns of Superset's table of queries (read
and tested with Superset 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import g, has_request_context, request

from runtime.environment import metadata_database
from runtime.environment.metadata_database import Connection
from runtime.queries import admission, chart_jobs
from runtime.queries.query_tasks import GUEST
from runtime.superset.implementation import OPEN, TASK_KEY

if TYPE_CHECKING:
    from superset.models.sql_lab import Query

#: First key of the advisory lock under which the queries of one principal are counted; the second is the principal's.
ADMISSION_LOCK = 0x61646D74
#: Starts the name of a user who is logged in.
USER = "user:"
#: Holds the principal's lock until the transaction ends, and then counts the queries that were admitted: in one message to the
#: server, whose last statement sees what others have committed before they gave the lock up. A pooler may be in between.
_ADMITTED = f"""
SAVEPOINT admission; SET LOCAL lock_timeout = '{metadata_database.LOCK_SECONDS}s';
SELECT pg_advisory_xact_lock({ADMISSION_LOCK}, hashtext(%s)); SET LOCAL lock_timeout = DEFAULT;
SELECT count(*) FROM query WHERE user_id = %s AND {OPEN} AND position(%s IN extra_json) > 0
"""


def current() -> str:
    """The principal of this request."""
    guest, user_id = _guest_token(), getattr(g.get("user"), "id", None)
    return chart_jobs.principal(user_id, guest, "" if guest or user_id is not None else visitor())


def username() -> str:
    """How the table of executions names whoever this request works for; empty for a visitor."""
    guest = _guest_token()
    if guest is not None:
        return GUEST + str((guest.get("user") or {}).get("username", ""))
    return str(getattr(g.get("user"), "username", None) or "")


def _guest_token() -> dict[str, Any] | None:
    user: Any = g.get("user")
    return dict(user.guest_token) if getattr(user, "is_guest_user", False) else None


def visitor(channel: str | None = None) -> str:
    """Who is neither user nor guest: the browser that came with its cookie, or else an address.

    Without its cookie a browser gets another channel with each request. `channel` is that of a chart outside of a request.
    """
    from superset.async_events.async_query_manager import AsyncQueryTokenException
    from superset.extensions import async_query_manager

    if not has_request_context():
        return f"channel:{channel}"
    try:
        return f"channel:{async_query_manager.parse_channel_id_from_request(request)}"
    except AsyncQueryTokenException:
        return f"address:{request.remote_addr}"


def is_theirs(query: Query) -> bool:
    """Whether the user of this request may end, read or export the query: his own, or anybody's for who may see all queries."""
    from superset.extensions import security_manager
    from superset.utils.core import get_user_id

    asking = get_user_id()
    return (asking is not None and asking == query.user_id) or bool(security_manager.can_access_all_queries())


def in_flight(connection: Connection, principal: str, queue: str) -> int:
    """How many queries, charts and waiting requests of `principal` are in flight.

    From here on until the transaction ends nobody else is told of the same principal. A Refusal, for `queue`, where its turn does
    not come; raises SQLAlchemy's errors and redis-py's.
    """
    from sqlalchemy.exc import OperationalError

    user_id = int(principal.removeprefix(USER)) if principal.startswith(USER) else None
    try:
        queries = connection.exec_driver_sql(_ADMITTED, (principal, user_id, f'"{TASK_KEY}":')).scalar()
    except OperationalError as error:
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT admission")
        raise admission.too_many_at_once(queue) from error
    return int(queries or 0) + chart_jobs.in_flight(principal)
