"""Where queries are sent to workers: bounded, registered, and never left `pending` by a broker that took nothing.

As shipped (Superset 6.1) queues have no end; a query that the broker refused, or that was refused after its row was written (a
typing error, a forbidden table), stays `pending`, since the request's transaction is rolled back over the `failed` that
Superset writes; and the caller gets a 500. Here a submission is refused with 429 beyond the stack's bounds and with 503 where
the broker does not take it, both in the shape of Superset's errors; whatever is refused has ended, with the error that its user
saw; and each task's id says whose it is, so that the reaper can tell where its message is.

Replaces `ASynchronousSqlJsonExecutor`, `SynchronousSqlJsonExecutor`, `ExecuteSqlCommand` and `QueryDAO` in
`superset.sqllab.api`, and the tasks of asynchronous charts (read and tested with Superset 6.1.0 and Celery 5.6.3). Superset 7
moves SQL Lab onto its Global Task Framework (its pull request 43928).
"""

from __future__ import annotations

import dataclasses
import logging
import secrets as random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.broker.task_messages import TaskMessage, own_headers
from runtime.environment import json_logs, metadata_database, versions
from runtime.queries import admission, chart_jobs, outbox
from runtime.queries.admission import Refusal
from runtime.queries.interfaces import OPEN_STATES
from runtime.queries.query_tasks import SQL_TASK
from runtime.superset import lost_metadata, principals, refusals, synchronous
from runtime.superset.implementation import TASK_KEY
from runtime.tenants.identity import TENANT_HEADER

if TYPE_CHECKING:
    from celery import Task
    from celery.result import AsyncResult
    from flask import Flask
    from superset.commands.sql_lab.execute import CommandResult
    from superset.models.sql_lab import Query
    from superset.sqllab.command_status import SqlJsonExecutionStatus
    from superset.sqllab.sql_json_executer import GetSqlResultsTask
    from superset.sqllab.sqllab_execution_context import SqlJsonExecutionContext

logger = logging.getLogger(__name__)

#: Key in the `extra` of a query that was refused: why.
REFUSED_KEY = "superset_async_refused"


def routed(task: Task[Any, Any], task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskMessage:
    """The message that Celery will send for this task: it asks the stack's router the same way."""
    route = task.app.amqp.router.route({}, task.name, args, kwargs)
    headers = cast("dict[str, Any]", route.get("headers") or {})
    hard, soft = headers.get("timelimit") or (None, None)
    queue = str(route["queue"].name)
    return TaskMessage(task.name, task_id, list(args), kwargs, queue, hard, soft, own_headers(headers))


class ChartSubmission:
    """A chart's job, whose id is its task's: registered, then sent."""

    def __init__(self, task: Task[Any, Any], arguments: tuple[Any, ...]) -> None:
        # A guest's token goes with the message, and nowhere else.
        job = cast("dict[str, Any]", arguments[0])
        self._metadata = {key: value for key, value in job.items() if key != "guest_token"}
        self._task, self._arguments = task, arguments
        self._job_id = str(self._metadata["job_id"])
        self.name = f"job {self._job_id}"
        message = routed(task, self._job_id, arguments, {})
        self.queue = message.queue
        json_logs.about(task_id=self._job_id, tenant=message.headers.get(TENANT_HEADER))
        user_id, guest = job.get("user_id"), job.get("guest_token")
        visitor = principals.visitor(str(job["channel_id"])) if user_id is None and guest is None else ""
        self.user = chart_jobs.principal(user_id, guest, visitor)

    def in_flight(self) -> int:
        """The principal's other charts, and queries of SQL Lab. The request's transaction keeps others waiting until it ends."""
        return _in_flight(self.user, self.queue)

    def record(self) -> None:
        """The registry is in Redis, as the broker is: without it nothing is sent."""
        try:
            chart_jobs.admit(self._job())
        except Exception as error:
            logger.exception("%s could not be registered", self.name)
            raise admission.broker_refused(error, self.queue) from error

    def register(self) -> None:
        """Have the job found where it is lost."""
        chart_jobs.register(self._job())

    def send(self) -> None:
        """Send its task."""
        self._task.apply_async(self._arguments, task_id=self._job_id)

    def _job(self) -> chart_jobs.ChartJob:
        return chart_jobs.ChartJob(self._metadata, self._job_id, self.queue, self.user, time.time())

    def withdraw(self) -> None:
        """Forget the job."""
        with suppress(Exception):
            chart_jobs.remove(self._metadata)


class SqlSubmission:
    """A query of SQL Lab, whose row says its task's id."""

    def __init__(self, task: Task[Any, Any], query: Query, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task, self._query, self._args, self._kwargs = task, query, args, kwargs
        self._task_id = f"{SQL_TASK}{query.id}"
        self._message = routed(task, self._task_id, args, kwargs)
        self.name = f"query {query.id}"
        self.queue = self._message.queue
        self.user = chart_jobs.principal(query.user_id, None, "")
        tenant = self._message.headers.get(TENANT_HEADER)
        json_logs.about(query_id=str(query.id), task_id=self._task_id, tenant=tenant)

    def in_flight(self) -> int:
        """The user's charts, and the other queries of SQL Lab. Others wait until `record` commits."""
        return _in_flight(self.user, self.queue)

    def record(self) -> None:
        """The task's id and a copy of its message, committed: the worker must read what was decided here."""
        from superset.extensions import db

        self._query.set_extra_json_key(TASK_KEY, self._task_id)
        outbox.keep(db.session.connection(), self._query.id, self._message)
        db.session.commit()

    def send(self) -> AsyncResult[Any]:
        """Send the task."""
        return self._task.apply_async(self._args, self._kwargs, task_id=self._task_id)

    def withdraw(self) -> None:
        """Nothing: its row is ended by who is refused."""


def _in_flight(principal: str, queue: str) -> int:
    from superset.extensions import db

    return principals.in_flight(db.session.connection(), principal, queue)


class ChartTask:
    """A task that computes a chart, as Superset's manager of asynchronous charts calls it."""

    def __init__(self, task: Task[Any, Any]) -> None:
        self._task = task

    def register(self, *args: Any) -> None:
        """Register its job, which `delay` then sends, or which follows another.

        A Refusal where the broker's server is silent: whoever went on would wait for it again. Else what redis-py raises.
        """
        submission = ChartSubmission(self._task, args)
        try:
            submission.register()
        except RedisTimeoutError as silent:
            raise admission.broker_refused(silent, submission.queue) from silent

    def delay(self, *args: Any) -> None:
        """Send it under its job's id; a Refusal ends the request where it cannot be."""
        try:
            admission.submit(ChartSubmission(self._task, args))
        except Refusal as refusal:
            raise refusals.superset_error(refusal) from refusal


class SqlTask:
    """The task of one query of SQL Lab, as Superset's executor calls it."""

    def __init__(self, task: Task[Any, Any], query: Query) -> None:
        self._task, self._query = task, query

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Send it under the query's id, or raise a Refusal."""
        return admission.submit(SqlSubmission(self._task, self._query, args, kwargs))


def install(app: Flask) -> None:
    """Have this web process submit queries as this module says; UntestedVersionError for a Superset of another version."""
    versions.require(__name__, "apache-superset", "celery")
    _install_executor()
    refusals.install(app)


def _install_executor() -> None:
    from superset.commands.sql_lab.execute import ExecuteSqlCommand
    from superset.daos.query import QueryDAO
    from superset.extensions import db
    from superset.sqllab import api
    from superset.sqllab.command_status import SqlJsonExecutionStatus
    from superset.sqllab.sql_json_executer import ASynchronousSqlJsonExecutor, SynchronousSqlJsonExecutor

    class Executor(ASynchronousSqlJsonExecutor):
        """Sends as shipped; where that is refused, the query has ended."""

        def execute(
            self, execution_context: SqlJsonExecutionContext, rendered_query: str, log_params: dict[str, Any] | None
        ) -> SqlJsonExecutionStatus:
            query = execution_context.query
            task = cast("Task[Any, Any]", self._get_sql_results_task)
            self._get_sql_results_task = cast("GetSqlResultsTask", SqlTask(task, query))
            try:
                return ASynchronousSqlJsonExecutor.execute(self, execution_context, rendered_query, log_params)
            except Exception as error:
                if not isinstance(error.__cause__, Refusal):
                    raise
                _end_refused(query.id, error.__cause__)
                raise refusals.superset_error(error.__cause__) from error.__cause__

    class Waiting(SynchronousSqlJsonExecutor):
        """Sends it to a worker like any other query, and waits for its end."""

        def execute(
            self, execution_context: SqlJsonExecutionContext, rendered_query: str, log_params: dict[str, Any] | None
        ) -> SqlJsonExecutionStatus:
            with synchronous.slot():
                sent = Executor(self._query_dao, self._get_sql_results_task)
                sent.execute(execution_context, rendered_query, log_params)
                execution_context.set_execution_result(synchronous.wait(execution_context.query))
            return SqlJsonExecutionStatus.HAS_RESULTS

    class Command(ExecuteSqlCommand):
        """As shipped, and what is refused has ended.

        A query that the broker refused may be sent again: browsers do so with the same client id, which is unique.
        """

        _saved_id: int | None = None

        def run(self) -> CommandResult:
            """Submit the query, or execute a synchronous one."""
            try:
                return ExecuteSqlCommand.run(self)
            except Exception as error:
                full = any(map(metadata_database.is_full, lost_metadata.chain(error)))
                said = refusals.superset_error(admission.unrecorded()) if full else error
                if self._saved_id is not None:
                    _end_unsent(self._saved_id, said)
                if full:
                    db.session.rollback()
                    raise said from error
                raise

        def _save_new_query(self, query: Query) -> None:
            ExecuteSqlCommand._save_new_query(self, query)
            self._saved_id = query.id

        def _try_get_existing_query(self) -> Query | None:
            query = ExecuteSqlCommand._try_get_existing_query(self)
            if query is None or REFUSED_KEY not in query.extra:
                return query
            query.client_id = random.token_hex(5)
            db.session.flush()
            return None

    class Dao(QueryDAO):
        """Does not write back a query's extra without need: in it the worker has put, meanwhile, how to cancel the statement."""

        @staticmethod
        def save_metadata(query: Query, payload: dict[str, Any]) -> None:
            if payload.get("columns"):
                QueryDAO.save_metadata(query, payload)

    api.QueryDAO = Dao
    api.ASynchronousSqlJsonExecutor = Executor
    api.SynchronousSqlJsonExecutor = Waiting
    api.ExecuteSqlCommand = Command


def _end_refused(query_id: int, refusal: Refusal) -> None:
    """End what the broker or a bound refused."""
    from superset.extensions import db

    # Superset writes `failed` too, but its transaction is rolled back with the exception.
    db.session.rollback()
    _fail(query_id, refusal.message, refusal.errors(), {REFUSED_KEY: refusal.reason})


def _end_unsent(query_id: int, refused: Exception) -> None:
    """End a query whose request fails and that no worker will get, with what its user reads; the request's own error counts."""
    from superset.extensions import db
    from superset.models.sql_lab import Query

    try:
        query = db.session.query(Query).filter_by(id=query_id).one()
        if query.status in OPEN_STATES and TASK_KEY not in query.extra:
            errors = _errors_of(refused)
            _fail(query_id, "\n".join(each["message"] for each in errors), errors, {})
    except Exception:
        # The reaper ends it.
        logger.warning("query %s was refused, and its end could not be written", query_id, exc_info=True)
        db.session.rollback()


def _errors_of(refused: Exception) -> list[dict[str, Any]]:
    """The errors that the answer of a request has, which ends with `refused`."""
    from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
    from superset.exceptions import SupersetErrorException, SupersetErrorsException, SupersetException

    if isinstance(refused, SupersetErrorsException):
        return [dataclasses.asdict(error) for error in refused.errors]
    if isinstance(refused, SupersetErrorException):
        return [dataclasses.asdict(refused.error)]
    kind = refused.error_type if isinstance(refused, SupersetException) else None
    error_type = SupersetErrorType(kind) if kind else SupersetErrorType.GENERIC_BACKEND_ERROR
    return [dataclasses.asdict(SupersetError(message=str(refused), error_type=error_type, level=ErrorLevel.ERROR))]


def _fail(query_id: int, message: str, errors: list[dict[str, Any]], extra: Mapping[str, str]) -> None:
    from superset.extensions import db
    from superset.models.sql_lab import Query
    from superset.utils.dates import now_as_float

    session = db.session
    query = session.query(Query).filter_by(id=query_id).one()
    query.status, query.error_message = "failed", message
    query.end_time = now_as_float()
    for key, value in {"errors": errors, **extra}.items():
        query.set_extra_json_key(key, value)
    session.commit()
