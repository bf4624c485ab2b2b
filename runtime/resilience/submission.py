"""Where queries are sent to workers: bounded, registered, and never left `pending` by a broker that took nothing.

As shipped (Superset 6.1) queues have no end, a query that the broker refused stays `pending` (the request's transaction is
rolled back over the `failed` that Superset writes), a pending one cannot be stopped, and the caller gets a 500. Here a
submission is refused with 429 beyond the stack's bounds and with 503 where the broker does not take it, both in the shape of
Superset's errors; and each task's id says whose it is, so that the reaper can tell where its message is.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import secrets as random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

from runtime import coordination, metric_names, superset_version
from runtime.config import load_topology, redis, secrets
from runtime.config.objects import client as redis_client
from runtime.model import Resilience, Topology
from runtime.resilience import copies, jobs
from runtime.resilience.delays import Message, own_headers
from runtime.resilience.messages import PRIORITY_SUFFIXES

logger = logging.getLogger(__name__)

#: Key in a query's `extra`: the id of the task that was, or is about to be, sent for it. Synchronous queries have none.
TASK_KEY = "superset_async_task"
#: Key in the `extra` of a query that was refused: why.
REFUSED_KEY = "superset_async_refused"
#: Starts the id of the task of a query of SQL Lab; the query's id follows. A chart's task has its job's id.
SQL_TASK = "sql-"
#: SQL that is true for a row of the query table that has not ended.
OPEN = "status IN ('pending', 'running', 'scheduled', 'fetching')"
#: Superset's kind of error for all refusals: its pages show the message as it is.
ERROR_TYPE = "ASYNC_WORKERS_ERROR"


@dataclasses.dataclass(eq=False)
class Refusal(Exception):
    """Why a submission was not taken: HTTP status, what the user reads, and after how many seconds to try again."""

    reason: str
    queue: str
    status: int
    message: str
    retry_after_seconds: int

    def errors(self) -> list[dict[str, Any]]:
        """The errors of the answer, as Superset writes them."""
        extra = {"reason": self.reason, "queue": self.queue, "retry_after_seconds": self.retry_after_seconds}
        return [{"message": self.message, "error_type": ERROR_TYPE, "level": "error", "extra": extra}]


def beyond(bounds: Resilience, queue: str, waiting: int, in_flight: int) -> Refusal | None:
    """What refuses one more query, where `waiting` messages are in its queue and the user has `in_flight` others."""
    if in_flight >= bounds.max_in_flight_per_user:
        return Refusal(
            reason="user_in_flight",
            queue=queue,
            status=429,
            message=f"You have {in_flight} queries waiting or running, and a user may have {bounds.max_in_flight_per_user}. "
            "This one was not started. Wait until one has ended, or stop one, and run it again.",
            retry_after_seconds=5,
        )
    if waiting >= bounds.max_queued:
        return Refusal(
            reason="queue_full",
            queue=queue,
            status=429,
            message=f"{waiting} queries wait in queue {queue!r} already, and it takes {bounds.max_queued}. This one was not "
            "started. Run it again in a minute; an administrator can add workers to the queue.",
            retry_after_seconds=60,
        )
    return None


def broker_refused(error: BaseException, queue: str) -> Refusal:
    """The refusal that follows from the broker's `error`; its details are in the log, since they hold addresses."""
    full = "maxmemory" in str(error)
    return Refusal(
        reason="broker_full" if full else "broker_down",
        queue=queue,
        status=503,
        message=("The broker's memory is full" if full else "The broker does not answer")
        + ", so this query could not be handed to a worker. It was not started. Run it again in a minute; if that does not "
        "help, tell an administrator.",
        retry_after_seconds=10,
    )


def check(queue: str, user: str, user_id: int | None, own: int = 0) -> None:
    """Refuse where the queue or the user has enough; a bound that cannot be read never refuses.

    `own` is how many of the user's queries in the query table are the one that asks.
    """
    try:
        refusal = beyond(_topology().resilience, queue, _waiting(queue), _in_flight(user, user_id) - own)
    except Exception:
        logger.warning("the bounds of queue %r could not be checked", queue, exc_info=True)
        return
    if refusal is not None:
        coordination.count(metric_names.REFUSED, reason=refusal.reason, queue=queue)
        raise refusal


def _waiting(queue: str) -> int:
    broker, prefix = _broker()
    pipeline = broker.pipeline(transaction=False)
    for suffix in PRIORITY_SUFFIXES:
        pipeline.llen(f"{prefix}{queue}{suffix}")
    return sum(pipeline.execute())


def _in_flight(user: str, user_id: int | None) -> int:
    charts = jobs.in_flight(user)
    if user_id is None:
        return charts
    count = (
        _db().session.connection().exec_driver_sql(f"SELECT count(*) FROM query WHERE user_id = %s AND {OPEN}", (user_id,))
    )
    return charts + int(count.scalar())


@lru_cache(maxsize=1)
def _topology() -> Topology:
    return load_topology(os.environ)


@lru_cache(maxsize=1)
def _broker() -> tuple[Any, str]:
    database = redis.database(_topology(), secrets.read(_topology(), os.environ), "broker")
    return redis_client(database), database.prefix


def routed(task: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Message:
    """The message that Celery will send for this task: it asks the stack's router the same way."""
    route = task.app.amqp.router.route({}, task.name, args, dict(kwargs))
    headers = cast("dict[str, Any]", route.get("headers") or {})
    hard, soft = headers.get("timelimit") or (None, None)
    queue = str(route["queue"].name)
    return Message(task.name, task_id, list(args), dict(kwargs), queue, hard, soft, own_headers(headers))


class ChartTask:
    """A task that computes a chart, as Superset's manager of asynchronous charts calls it: registered, then sent."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def delay(self, *args: Any) -> None:
        """Send it under its job's id; a Refusal ends the request where it cannot be."""
        # A guest's token goes with the message, and nowhere else.
        metadata = {key: value for key, value in cast("dict[str, Any]", args[0]).items() if key != "guest_token"}
        queue = routed(self._task, str(metadata["job_id"]), args, {}).queue
        user = jobs.user_of(metadata)
        try:
            check(queue, user, metadata.get("user_id"))
            job = jobs.Job(metadata, str(metadata["job_id"]), queue, user, time.time())
            try:
                jobs.add(job)
                self._task.apply_async(args, task_id=job.task_id)
            except Exception as error:
                logger.exception("job %s could not be sent to queue %r", job.job_id, queue)
                with suppress(Exception):
                    jobs.remove(metadata)
                raise broker_refused(error, queue) from error
        except Refusal as refusal:
            raise _superset_error(refusal) from refusal


class _SqlTask:
    """The task of one query of SQL Lab, as Superset's executor calls it."""

    def __init__(self, task: Any, query: Any) -> None:
        self._task, self._query = task, query

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        task_id = f"{SQL_TASK}{self._query.id}"
        message = routed(self._task, task_id, args, kwargs)
        check(message.queue, f"user:{self._query.user_id}", self._query.user_id, own=1)
        self._query.set_extra_json_key(TASK_KEY, task_id)
        session = _db().session
        copies.keep(session.connection(), self._query.id, message)
        # The worker must read what was decided here, its row limit too.
        session.commit()
        try:
            return self._task.apply_async(args, kwargs, task_id=task_id)
        except Exception as error:
            logger.exception("query %s could not be sent to queue %r", self._query.id, message.queue)
            raise broker_refused(error, message.queue) from error


def _superset_error(refusal: Refusal) -> Exception:
    """Superset's exception for a refusal, which its pages of errors know; the answer itself is `_answer`'s."""
    import_module("flask").g.superset_async_refusal = refusal
    errors = import_module("superset.errors")
    error = errors.SupersetError(
        message=refusal.message, error_type=errors.SupersetErrorType[ERROR_TYPE], level=errors.ErrorLevel.ERROR
    )
    return cast(Exception, import_module("superset.exceptions").SupersetErrorException(error, status=refusal.status))


def install(app: Any) -> None:
    """Have this web process submit queries as this module says; UntestedSupersetError for a Superset of another version."""
    superset_version.require(__name__)
    _install_executor()
    _install_stop()
    app.after_request(_answer)


def _answer(response: Any) -> Any:
    """Superset's views turn an exception into one of several shapes and statuses; a refusal has one."""
    refusal = cast("Refusal | None", import_module("flask").g.pop("superset_async_refusal", None))
    if refusal is not None and response.status_code >= 400:
        response.set_data(json.dumps({"errors": refusal.errors()}))
        response.mimetype = "application/json"
        response.status_code = refusal.status
        response.headers["Retry-After"] = str(refusal.retry_after_seconds)
    return response


def _install_executor() -> None:
    api: Any = import_module("superset.sqllab.api")
    shipped_dao: Any = api.QueryDAO
    shipped_executor: Any = import_module("superset.sqllab.sql_json_executer").ASynchronousSqlJsonExecutor
    shipped_command: Any = import_module("superset.commands.sql_lab.execute").ExecuteSqlCommand

    class Executor(shipped_executor):
        """Sends as shipped; where that is refused, the query has ended."""

        def execute(self, execution_context: Any, rendered_query: str, log_params: dict[str, Any] | None) -> Any:
            query = execution_context.query
            self._get_sql_results_task = _SqlTask(self._get_sql_results_task, query)
            try:
                return shipped_executor.execute(self, execution_context, rendered_query, log_params)
            except Exception as error:
                if not isinstance(error.__cause__, Refusal):
                    raise
                _end_refused(query.id, error.__cause__)
                raise _superset_error(error.__cause__) from error.__cause__

    class Command(shipped_command):
        """As shipped, and a refused query may be sent again: browsers do so with the same client id, which is unique."""

        def _try_get_existing_query(self) -> Any:
            query = shipped_command._try_get_existing_query(self)
            if query is None or REFUSED_KEY not in query.extra:
                return query
            query.client_id = random.token_hex(5)
            _db().session.flush()
            return None

    class Dao(shipped_dao):
        """Does not write back a query's extra without need: in it the worker has put, meanwhile, how to cancel the statement."""

        @staticmethod
        def save_metadata(query: Any, payload: dict[str, Any]) -> None:
            if payload.get("columns"):
                shipped_dao.save_metadata(query, payload)

    api.QueryDAO = Dao
    api.ASynchronousSqlJsonExecutor = Executor
    api.ExecuteSqlCommand = Command


def _end_refused(query_id: int, refusal: Refusal) -> None:
    # Superset writes `failed` too, but its transaction is rolled back with the exception.
    session = _db().session
    session.rollback()
    query = session.query(import_module("superset.models.sql_lab").Query).filter_by(id=query_id).one()
    query.status, query.error_message = "failed", refusal.message
    query.end_time = import_module("superset.utils.dates").now_as_float()
    query.set_extra_json_key("errors", refusal.errors())
    query.set_extra_json_key(REFUSED_KEY, refusal.reason)
    session.commit()


def _install_stop() -> None:
    dao: Any = import_module("superset.daos.query").QueryDAO
    shipped = dao.stop_query

    def stop_query(client_id: str) -> None:
        if not _stop_pending(client_id):
            shipped(client_id)

    dao.stop_query = staticmethod(stop_query)


def _stop_pending(client_id: str) -> bool:
    """Write `stopped` over `pending`, so that the worker that takes its message leaves it; whether that was so."""
    model: Any = import_module("superset.models.sql_lab").Query
    stopped = {"status": "stopped", "end_time": import_module("superset.utils.dates").now_as_float()}
    rows = (
        _db()
        .session.query(model)
        .filter_by(client_id=client_id, status="pending")
        .update(stopped, synchronize_session=False)
    )
    _db().session.commit()
    return rows == 1


def _db() -> Any:
    return import_module("superset.extensions").db
