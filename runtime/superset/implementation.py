"""The four interfaces of `runtime.queries.interfaces` on Superset 6.1: SQL Lab's table of queries, and asynchronous charts.

Superset 7 moves both onto its Global Task Framework, with task rows and cancellation of their own. Its implementation goes
beside this module, as `task_framework`, and `install` takes the one that fits the installed version; `docs/decisions` says hook
by hook what changes.

Leans on the columns of the tables query, dbs, tables and ab_user, and on `superset.async_events` (read and tested with 6.1.0).

Superset 7's pull requests are 43407, 43424, 43429 and 43627 for charts, and 43928 for SQL Lab.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from runtime.environment import metadata_database, versions
from runtime.environment.metadata_database import Connection
from runtime.queries import admission, final_states, interfaces, query_tasks
from runtime.queries.interfaces import OPEN_STATES, ErrorType, Identified, OpenQuery, Seen
from runtime.superset import cancelling, this_application
from runtime.superset.sql_parser import may_write
from runtime.superset.statement_timeout import is_read_only

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

logger = logging.getLogger(__name__)

#: Key in a query's `extra`: the id of the task that was, or is about to be, sent for it. Synchronous queries have none.
TASK_KEY = "superset_async_task"
#: SQL that is true for a row of the query table that has not ended; migration 0001 has an index of these.
OPEN = "status IN ('pending', 'running', 'scheduled', 'fetching')"
#: The database's own clock, as Superset keeps times of a query: those of all processes can be compared.
NOW = "extract(epoch from clock_timestamp()) * 1000"


def install() -> None:
    """Have this process ask its Superset; UntestedVersionError for one of another version."""
    versions.require(__name__, "apache-superset", "sqlalchemy")
    metadata_database.use_pool_of(_pooled_engine)
    interfaces.use(interfaces.Superset(Identification(), Fence(), Ending()))


def _pooled_engine() -> Engine:
    from flask import has_app_context
    from superset.extensions import db

    # The end of a context ends the thread's session: never within a request, whose work is not committed yet.
    with nullcontext() if has_app_context() else this_application.get().app_context():
        return db.engine


class Identification:
    """Whose a query or a chart is."""

    def query(self, connection: Connection, query_id: int, sql: str) -> Identified | None:
        """By its row, and that of its database."""
        row = connection.exec_driver_sql(
            "SELECT q.status, COALESCE(q.error_message, ''), d.database_name, d.sqlalchemy_uri, d.extra, q.select_as_cta, "
            "q.start_time FROM query q JOIN dbs d ON d.id = q.database_id WHERE q.id = %s",
            (query_id,),
        ).fetchone()
        if row is None:
            return None
        status, error, name, uri, extra, creates, submitted = row
        engine = str(uri).partition(":")[0].partition("+")[0]
        return Identified(
            status=str(status),
            error=str(error),
            username="",
            database_name=str(name),
            writes=bool(creates) or may_write(sql, engine, read_only_session=is_read_only(str(uri), extra)),
            submitted_at=float(submitted) / 1000 if submitted else None,
        )

    def chart(self, connection: Connection, dataset_id: int | None, user_id: int | None) -> Identified:
        """By its dataset's database, and its user's name."""
        row = connection.exec_driver_sql(
            "SELECT (SELECT d.database_name FROM tables t JOIN dbs d ON d.id = t.database_id WHERE t.id = %s), "
            "(SELECT username FROM ab_user WHERE id = %s)",
            (dataset_id, user_id),
        ).fetchone()
        name, username = row if row else (None, None)
        return Identified(None, "", str(username or ""), str(name or ""), writes=False, submitted_at=None)

    def open_queries(self, connection: Connection) -> Iterable[OpenQuery]:
        """All open rows."""
        # Of the extra's JSON only what is asked for: it may hold anything, and a lot of it.
        rows = connection.exec_driver_sql(
            "SELECT id, status <> 'pending', substring(extra_json from %s), "
            f"extract(epoch from now()) - COALESCE(start_running_time, start_time, 0) / 1000 FROM query WHERE {OPEN}",
            (f'"{TASK_KEY}": "([^"]+)"',),
        )
        return [OpenQuery(row[0], bool(row[1]), row[2], float(row[3])) for row in rows]


class Fence:
    """The steps of an open query."""

    def begin(self, connection: Connection, query_id: int) -> bool:
        """From any open state: `running` is that of an attempt whose process is gone."""
        done = connection.exec_driver_sql(
            f"UPDATE query SET status = 'running', start_running_time = {NOW}, changed_on = timezone('utc', now()) "
            f"WHERE id = %s AND {OPEN}",
            (query_id,),
        )
        return bool(done.rowcount)

    def stop(self, connection: Connection, query_id: int) -> str | None:
        """From any open state."""
        before = connection.exec_driver_sql("SELECT status FROM query WHERE id = %s FOR UPDATE", (query_id,)).scalar()
        connection.exec_driver_sql(
            f"UPDATE query SET status = 'stopped', end_time = {NOW}, changed_on = timezone('utc', now()) "
            f"WHERE id = %s AND {OPEN}",
            (query_id,),
        )
        return None if before is None else str(before)

    def say(self, connection: Connection, query_id: int, message: str) -> None:
        """In the place of its error."""
        connection.exec_driver_sql(
            "UPDATE query SET error_message = %s, changed_on = timezone('utc', now()) WHERE id = %s AND status = 'stopped'",
            (message, query_id),
        )

    def put_back(self, connection: Connection, query_id: int) -> bool:
        """From `running` to `pending`."""
        done = connection.exec_driver_sql(
            "UPDATE query SET status = 'pending', start_running_time = NULL, changed_on = timezone('utc', now()) "
            "WHERE id = %s AND status = 'running'",
            (query_id,),
        )
        return bool(done.rowcount)


class Ending:
    """What nobody else writes: a query's row and a chart's event, from outside."""

    def error(self, message: str, error_type: ErrorType) -> dict[str, Any]:
        """One error, as Superset's pages expect it, made by Superset."""
        return error(message, error_type)

    def query(
        self,
        connection: Connection,
        query_id: int,
        message: str,
        error_type: ErrorType = "ASYNC_WORKERS_ERROR",
        states: Sequence[str] = OPEN_STATES,
    ) -> bool:
        """Superset's pages show the state `failed` only (not `timed_out`) with its message, and poll by `changed_on`."""
        done = connection.exec_driver_sql(
            f"UPDATE query SET status = 'failed', error_message = %s, end_time = {NOW}, tmp_table_name = NULL, "
            "changed_on = timezone('utc', now()), extra_json = "
            "(COALESCE(NULLIF(extra_json, ''), '{}')::jsonb || jsonb_build_object('errors', %s::jsonb))::text "
            "WHERE id = %s AND status = ANY(%s)",
            (message, json.dumps([self.error(message, error_type)]), query_id, list(states)),
        )
        return bool(done.rowcount)

    def state(self, connection: Connection, query_id: int) -> tuple[str | None, str]:
        """By its row."""
        row = connection.exec_driver_sql(
            "SELECT status, COALESCE(error_message, '') FROM query WHERE id = %s", (query_id,)
        ).fetchone()
        return (str(row[0]), str(row[1])) if row else (None, "")

    def chart(self, job: Mapping[str, Any], message: str, error_type: ErrorType = "ASYNC_WORKERS_ERROR") -> None:
        """By an event in its channel."""
        from superset.extensions import async_query_manager

        errors = [self.error(message, error_type)]
        async_query_manager.update_job(shown(job), async_query_manager.STATUS_ERROR, errors=errors)

    def expect(self) -> None:
        """Nothing to do: this process has its Superset."""

    def cancel(self, query_ids: Sequence[int], seconds: float) -> dict[int, Seen]:
        """As when their users stop them."""
        with metadata_database.transaction() as connection:
            asked = "SELECT id, database_id FROM query WHERE id = ANY(%(ids)s)"
            rows = connection.exec_driver_sql(asked, {"ids": list(query_ids)}).fetchall()
        answered = [(row[0], _canceller(row[1]).cancel(row[0])) for row in rows]
        deadline = time.monotonic() + seconds
        found: dict[int, Seen] = dict.fromkeys(query_ids, "unknown")
        for query_id, answer in answered:
            # One that comes later is of no use to anybody.
            with suppress(TimeoutError):
                found[query_id] = answer.result(max(0.0, deadline - time.monotonic()))
        return found


def shown(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a browser may see of a chart's job."""
    return {key: value for key, value in job.items() if key != "guest_token"}


def error(message: str, error_type: ErrorType) -> dict[str, Any]:
    """One error, as Superset's pages expect it."""
    from superset.errors import ErrorLevel, SupersetError, SupersetErrorType

    found = SupersetError(
        message=message,
        error_type=SupersetErrorType[error_type],
        level=ErrorLevel.ERROR,
        extra={"engine_name": admission.TITLE},
    )
    return asdict(found)


def reworded(errors: Sequence[Any]) -> list[Any]:
    """The errors of a chart's event, with what a user reads in place of what Superset makes of the soft limit."""
    soft_limit = query_tasks.soft_limit(final_states.limit.get())
    return [error(soft_limit, "ASYNC_WORKERS_ERROR") if final_states.TIMED_OUT in str(each) else each for each in errors]


class _Canceller:
    """A thread that cancels the statements of one database, one after the other: a silent database holds up no other."""

    def __init__(self, database_id: int | None) -> None:
        self._asked: SimpleQueue[tuple[int, Future[Seen]]] = SimpleQueue()
        threading.Thread(target=self._run, name=f"cancel-{database_id}", daemon=True).start()

    def cancel(self, query_id: int) -> Future[Seen]:
        """Have a statement cancelled; what was seen of it, once its database has answered, or has failed."""
        seen: Future[Seen] = Future()
        self._asked.put((query_id, seen))
        return seen

    def _run(self) -> None:
        while True:
            query_id, seen = self._asked.get()
            seen.set_result(_cancel(query_id))


@cache
def _canceller(database_id: int | None) -> _Canceller:
    return _Canceller(database_id)


def _cancel(query_id: int) -> Seen:
    from superset.extensions import db
    from superset.models.sql_lab import Query

    with this_application.get().app_context():
        try:
            seen = cancelling.cancel_statement(db.session.query(Query).filter_by(id=query_id).one())
        except Exception:
            logger.warning("query %s could not be cancelled in its database", query_id, exc_info=True)
            return "unknown"
        else:
            logger.info("query %s was cancelled; its statement is %s in its database", query_id, seen)
            return seen
        finally:
            db.session.remove()
