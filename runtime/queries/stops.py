"""How a query is stopped: one step from any open state to `stopped`, which is final, with words for what may be written."""

from __future__ import annotations

from runtime.environment.metadata_database import Connection
from runtime.queries import executions, query_tasks
from runtime.queries.interfaces import Seen, superset


def stop(connection: Connection, query_id: int, *, writes_unrecorded: bool) -> str | None:
    """Stop an open query; the state that it was in, None without a row.

    One that a worker has begun, and that may write, says that a write may stand: its attempt is written in the transaction in
    which it begins. `writes_unrecorded`: whether one that runs without an attempt, in a web process, may write. The caller
    commits, and cancels the statement of one that ran: only then, so that whoever executes it finds it stopped.
    """
    before = superset().fence.stop(connection, query_id)
    if before == "running":
        attempt = executions.last(connection, "sql", str(query_id))
        if attempt.writes if attempt else writes_unrecorded:
            superset().fence.say(connection, query_id, query_tasks.STOPPED_WRITE)
    return before


def say_seen(connection: Connection, query_id: int, seen: Seen) -> None:
    """Have a stopped query of which a write may stand say, too, that its statement was not seen gone. The caller commits."""
    if seen != "gone" and superset().ending.state(connection, query_id) == ("stopped", query_tasks.STOPPED_WRITE):
        superset().fence.say(connection, query_id, query_tasks.with_seen(query_tasks.STOPPED_WRITE, seen))
