"""A copy of each query's message, in the metadata database, from its submission until a worker begins it.

A broker can lose what it has taken: what it did in its last moment (`appendfsync everysec`), what a worker was given and could
not record any more (kombu 5.6 takes and records a message in two steps), a list that it evicted or that somebody deleted. The
reaper sends the copy then, once; if more than one message comes of it, the fence lets one be executed.
"""

from __future__ import annotations

from runtime.broker.task_messages import TaskMessage
from runtime.environment.metadata_database import Connection

TABLE = "superset_async_messages"


def keep(connection: Connection, query_id: int, message: TaskMessage) -> None:
    """Write the copy. `connection` is SQLAlchemy's, to the metadata database, here and below; the caller commits."""
    connection.exec_driver_sql(
        f"INSERT INTO {TABLE} (query_id, message) VALUES (%s, %s) ON CONFLICT (query_id) DO NOTHING",
        (query_id, message.to_json()),
    )


def again(connection: Connection, query_id: int) -> TaskMessage | None:
    """The copy, for who sends it now; None where there is none, or it was sent once."""
    row = connection.exec_driver_sql(
        f"UPDATE {TABLE} SET sent_again = true WHERE query_id = %s AND NOT sent_again RETURNING message", (query_id,)
    ).fetchone()
    return TaskMessage.from_json(row[0]) if row else None


def drop(connection: Connection, query_id: int) -> None:
    """Forget the copy: a worker has the message."""
    connection.exec_driver_sql(f"DELETE FROM {TABLE} WHERE query_id = %s", (query_id,))


def prune(connection: Connection) -> None:
    """Forget those of a day ago: of queries that no worker ever began, since they were stopped or refused."""
    connection.exec_driver_sql(f"DELETE FROM {TABLE} WHERE sent_at < now() - make_interval(days => 1)")
