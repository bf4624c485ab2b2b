"""Every execution of a query in a worker: fenced, leased, recorded, and ended in words that its user reads.

As shipped (Superset 6.1, Celery 5.6) a message that is delivered again is executed again, whatever it does; a stopped query
that still waits runs; a chart that reaches its soft limit tells its browser nothing; and a connection error fails a query that
would succeed a moment later. `runtime.superset.execution` puts `Delivery` around Superset's tasks.
"""

from __future__ import annotations

import copy
import logging
import os
import random
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from celery.exceptions import Ignore as IgnoredError
from celery.exceptions import Reject as RejectedError
from redis.exceptions import RedisError

from runtime.broker import delayed_messages
from runtime.broker.task_messages import TaskMessage, own_headers
from runtime.environment import counters, leases, metadata_database, process_topology
from runtime.environment.metadata_database import Connection
from runtime.queries import (
    abandoned_charts,
    chart_jobs,
    completions,
    execution_leases,
    executions,
    final_states,
    outbox,
    query_tasks,
    transient_errors,
)
from runtime.queries.executions import Attempt, Execution, Outcome
from runtime.queries.interfaces import OPEN_STATES, Identified, superset
from runtime.tenants.identity import TENANT_HEADER, tenant_of_queue
from topology import metric_names
from topology.settings.resilience import Resilience

if TYPE_CHECKING:
    from celery import Task

logger = logging.getLogger(__name__)

#: A delivery whose subject still runs elsewhere comes again after this: by then it has ended, or its lease has.
RUNNING_SECONDS = 20.0
#: A delivery that the metadata database was away for comes again after this.
AWAY_SECONDS = 5.0
#: How long a delivery tries to be rescheduled, while Redis is away, before it is left to the broker.
RESCHEDULE_SECONDS = 60.0
#: A query's row may become visible after its message.
ROW_SECONDS = 5.0
#: First and factor of the back-off of retries, in seconds.
BACKOFF_FIRST, BACKOFF_FACTOR = 2.0, 2.0


@dataclass(frozen=True)
class Run:
    """Execute it, as this attempt."""

    attempt: int


@dataclass(frozen=True)
class Ignore:
    """It has ended: there is nothing to do."""


@dataclass(frozen=True)
class Refuse:
    """Do not execute it again; `message` is what its user reads."""

    message: str


def decide(final: bool, last: Attempt | None, writes: bool, max_retries: int) -> Run | Ignore | Refuse:
    """What to do with a delivery whose subject nobody executes: `last` is the attempt before it."""
    if final:
        return Ignore()
    if last is None:
        return Run(1)
    if last.outcome != "retried":
        # An attempt that nobody ended, and nobody executes: its process is gone.
        if writes or last.writes:
            return Refuse(query_tasks.LOST_WRITE)
        if last.number > max_retries:
            return Refuse(query_tasks.lost_too_often(last.number))
    return Run(last.number + 1)


def backoff(attempt: int, most: float, chance: float) -> float:
    """Seconds until the attempt after `attempt`: exponential, at most `most`, and half of it by `chance` (0 to 1).

    Half is kept, since three retries drawn from zero on are often over before a database has restarted.
    """
    return min(most, BACKOFF_FIRST * BACKOFF_FACTOR ** (attempt - 1)) * (0.5 + chance / 2)


Begun = Literal["begun", "ended", "elsewhere"]


@dataclass(frozen=True)
class Seen:
    """What the metadata database knows of the subject: whose it is, the attempt before this one, and of a first one, which
    began as it was read, what came of that."""

    query: Identified
    last: Attempt | None
    begun: Begun | None = None

    def final(self, kind: executions.Kind) -> bool:
        """Whether it has ended: a query by its row, a chart by its last attempt, or since it is abandoned."""
        if kind == "sql":
            return self.query.status not in OPEN_STATES
        if self.query.status == "stopped":
            return True
        return self.last is not None and self.last.outcome not in (None, "retried")


class Delivery:
    """One delivery of one message, in the process that executes it."""

    def __init__(self, task: Task[Any, Any], asked: query_tasks.Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task = task
        self._work = asked
        self._began = time.monotonic()
        request = task.request
        delivered = cast("dict[str, Any]", request.delivery_info or {})
        self._queue = str(delivered.get("routing_key") or "")
        self._owner = execution_leases.Owner(str(request.hostname), os.getpid(), str(request.id))
        self._lease = execution_leases.lease(asked.kind, asked.subject, replace(self._owner, pid=0))
        self._attempt = 0
        self._watch: abandoned_charts.Watch | None = None
        hard, soft = request.timelimit or (None, None)
        self._soft_limit = float(soft or task.soft_time_limit or 0)
        # Superset takes the guest's token out of a chart's arguments.
        arguments = copy.deepcopy(args) if asked.kind == "chart" else args
        headers = own_headers(vars(request))

        self._tenant = headers.get(TENANT_HEADER) or tenant_of_queue(self._queue)
        self._message = TaskMessage(task.name, str(request.id), list(arguments), kwargs, self._queue, hard, soft, headers)

    def handle(self, run: Callable[[], Any]) -> Any:
        """Execute it with `run`, or find that it is not to be; the task's value."""
        try:
            seen = self._claim()
            decision = decide(seen.final(self._work.kind), seen.last, seen.query.writes, _bounds().max_retries)
            if isinstance(decision, Run):
                return self._run(run, seen, decision.attempt)
            if isinstance(decision, Refuse):
                self._refuse(decision.message)
            elif _unended(seen.last):
                outcome = final_states.outcome(seen.query.status, seen.query.error)
                self._known_or_rescheduled(lambda: self._end(outcome, attempt=_number(seen.last)))
                # Its process ended between its last word to Superset and its own count.
                self._count(outcome)
            elif seen.last is None and seen.query.status == "stopped":
                self._count("stopped")
            logger.info("%s %s is not executed: %s", self._work.kind, self._work.subject, decision)
            counters.count(metric_names.DELIVERIES_IGNORED, kind=self._work.kind, reason="ended")
            raise _ignored()
        finally:
            leases.keeper.give_back(self._lease)

    def _claim(self) -> Seen:
        """Take the lease, and what is known of the subject once nobody else executes it.

        An attempt without an end is given up where its parent says that its process is dead, or where it has been silent for as
        long as a living process needs to take a lost lease again. Where it is not, this delivery is rescheduled.
        """
        silent: int | None = None
        while True:
            taken = self._take()
            leases.keeper.keep(self._lease)
            seen = self._known_or_rescheduled(self._read)
            last = seen.last
            if seen.final(self._work.kind) or last is None or last.outcome is not None or last.number == silent:
                return seen
            if taken is not None and taken.previous_gone:
                return seen
            # Ours would keep whoever lives from taking it again.
            leases.keeper.give_back(self._lease)
            self._wait_for_silence()
            silent = last.number

    def _take(self) -> leases.Taken | None:
        """The lease, once nobody has it; None while Redis is away. Rescheduled where somebody alive has it."""
        try:
            while isinstance(found := execution_leases.take(self._lease), leases.Held):
                before = replace(self._lease, holder=found.holder)
                owner = execution_leases.Owner.parse(found.holder)
                mine = (owner.worker, owner.pid) == (self._owner.worker, self._owner.pid)
                if mine and not leases.keeper.keeps(before):
                    # Of this very process, which could not give it back when it had ended.
                    leases.release(before)
                else:
                    self._wait_for_silence()
        except RedisError as error:
            logger.warning("no lease for %s %s: %s", self._work.kind, self._work.subject, error)
            return None
        return found

    def _hold_as_child(self) -> None:
        """From here on the lease names this child, so that its parent can bury it."""
        claimed = self._lease
        try:
            self._lease = leases.hand_over(claimed, str(self._owner))
        except RedisError as error:
            logger.warning("the parent of %s cannot bury the lease of %s: %s", self._owner, claimed.name, error)
        if self._lease != claimed:
            leases.keeper.keep(self._lease)
            leases.keeper.drop(claimed)

    def _wait_for_silence(self) -> None:
        """Return once nobody has renewed or taken the lease for long enough; rescheduled where somebody does."""
        try:
            silent = leases.falls_silent(self._lease, RESCHEDULE_SECONDS, clock=time.monotonic, sleep=time.sleep)
        except RedisError as error:
            raise _rejected(f"Redis is away: {error}") from error
        if not silent:
            self._reschedule(RUNNING_SECONDS, "running")

    def _read(self) -> Seen:
        asked = self._work
        deadline = time.monotonic() + ROW_SECONDS
        while True:
            with metadata_database.transaction() as connection:
                last = executions.last(connection, asked.kind, asked.subject)
                identify = _identify_chart if asked.kind == "chart" else _identify_query
                seen = Seen(identify(connection, asked), last)
                if last is None and not seen.final(asked.kind):
                    # Nobody else has begun it, so that nothing is to be found out first: one transaction for both.
                    return replace(seen, begun=_begin_in(connection, self._execution(seen.query), 1))
            if asked.kind == "chart" or seen.query.status is not None or time.monotonic() > deadline:
                return seen
            time.sleep(0.5)

    def _execution(self, query: Identified) -> Execution:
        return Execution(
            kind=self._work.kind,
            subject=self._work.subject,
            task_id=self._owner.task_id,
            tenant=self._tenant,
            queue=self._queue,
            username=query.username,
            database_name=query.database_name,
            writes=query.writes,
            worker=self._owner.worker,
            submitted_at=query.submitted_at,
        )

    def _run(self, run: Callable[[], Any], seen: Seen, attempt: int) -> Any:
        asked = self._work
        begun = seen.begun or self._known_or_rescheduled(lambda: _begin(self._execution(seen.query), attempt))
        if begun == "elsewhere":
            self._reschedule(RUNNING_SECONDS, "running")
        if begun == "ended":
            logger.info("%s %s was stopped before it began", asked.kind, asked.subject)
            counters.count(metric_names.DELIVERIES_IGNORED, kind=asked.kind, reason="ended")
            raise _ignored()
        self._attempt = attempt
        self._hold_as_child()
        counters.count(metric_names.ATTEMPTS, kind=asked.kind, attempt=str(attempt))
        final_states.told.set(False)
        final_states.limit.set(self._soft_limit)
        # A synchronous query can still fail when its rows are returned, after it has succeeded.
        with_last_commit = asked.kind == "sql" and self._message.kwargs.get("return_results") is False
        final_states.unended.set((int(asked.subject), attempt) if with_last_commit else None)
        try:
            with transient_errors.retrying(not seen.query.writes and attempt <= _bounds().max_retries), self._watched():
                value = run()
        except transient_errors.TryAgain as again:
            self._retry(attempt, again.__cause__ or again)
        except transient_errors.UnwrittenEndError as unwritten:
            logger.warning("%s %s: its end could not be written: %s", asked.kind, asked.subject, unwritten.__cause__)
            message = query_tasks.UNWRITTEN_WRITE if seen.query.writes else query_tasks.UNWRITTEN_READ
            self._known_or_rescheduled(lambda: self._end("lost", message))
            raise _ignored() from unwritten
        except Exception as error:
            if self._watch is not None and self._watch.stopped:
                # Nobody waits for it: whoever marked it has told its pages.
                self._known_or_rescheduled(lambda: self._end("stopped", abandoned_charts.ABANDONED))
                self._count("stopped")
                raise _ignored() from error
            self._failed(error)
            raise
        if not with_last_commit or final_states.unended.get() is not None:
            self._ended()
        return value

    @contextmanager
    def _watched(self) -> Generator[None]:
        """In the block a chart is cancelled once nobody waits for it."""
        if self._work.kind != "chart":
            yield
            return
        with abandoned_charts.watched(self._work.subject) as self._watch:
            yield

    def _retry(self, attempt: int, error: BaseException) -> NoReturn:
        """The database could not be reached, or was lost: come again after the back-off, unless it was stopped meanwhile."""
        seconds = backoff(attempt, _bounds().retry_backoff_seconds, random.random())  # noqa: S311
        logger.warning(
            "%s %s, attempt %d: %s; again in %.1f s", self._work.kind, self._work.subject, attempt, error, seconds
        )

        self._send_later(seconds)
        counters.count(metric_names.RETRIES, kind=self._work.kind)
        try:
            self._put_back()
        except Exception:
            logger.warning("the retry of %s %s was not recorded", self._work.kind, self._work.subject, exc_info=True)
        raise _ignored()

    def _put_back(self) -> None:
        outcome: Outcome = "retried"
        with metadata_database.transaction() as connection:
            if self._work.kind == "sql" and not superset().fence.put_back(connection, int(self._work.subject)):
                outcome = "stopped"
            executions.end(connection, self._work.kind, self._work.subject, outcome, self._attempt)

    def _ended(self) -> None:
        """Superset has returned: a chart's browser is told, a query's row says how it ended."""
        if self._work.kind == "chart":
            self._known_or_rescheduled(lambda: self._end("success"))
        else:
            self._known_or_rescheduled(self._end_query)

    def _end_query(self) -> None:
        final_states.end_as_written(int(self._work.subject), self._attempt, self._read_end)

    def _read_end(self, status: str | None, error: str) -> final_states.End:
        outcome = final_states.outcome(status, error)
        if final_states.TIMED_OUT in error:
            # Superset has words for it only while the database works.
            return final_states.End(outcome, query_tasks.soft_limit(self._soft_limit), (*OPEN_STATES, "failed"))
        return final_states.End(outcome, query_tasks.LOST_READ if status in OPEN_STATES else None)

    def _failed(self, error: Exception) -> None:
        """An exception has left Superset's code: charts do so after their event, if they have sent one; queries never should."""
        said = f"{type(error).__name__}: {error}"
        message = query_tasks.soft_limit(self._soft_limit) if final_states.TIMED_OUT in said else query_tasks.broken(said)
        outcome = final_states.outcome("failed", said)
        if self._work.kind == "chart" and not final_states.told.get():
            try:
                superset().ending.chart(self._work.job, message)
            except Exception as refused:
                # With the result in its cache the next delivery has little to do.
                logger.warning("the browser of chart %s was not told: %s", self._work.subject, refused)
                outcome = "retried"
                self._send_later(AWAY_SECONDS)
        self._known_or_rescheduled(lambda: self._end(outcome, message))

    def _refuse(self, message: str) -> None:
        """End what nobody executes any more, and nobody may execute again."""
        if self._work.kind == "chart":
            superset().ending.chart(self._work.job, message)
            self._known_or_rescheduled(lambda: final_states.end("chart", self._work.subject, "lost", message))
        else:
            self._known_or_rescheduled(lambda: final_states.end_lost({int(self._work.subject): message}))
        self._count("lost")

    def _count(self, outcome: Outcome) -> None:
        """Count an end that Celery does not see: to it this delivery is ignored."""
        completions.count(self._task.name, self._queue, self._tenant, outcome)

    def _end(self, outcome: Outcome, message: str | None = None, *, attempt: int | None = None) -> None:
        """End the attempt of this delivery (or `attempt`, which nobody executes), and its query with `message`."""
        which = self._attempt if attempt is None else attempt
        final_states.end(self._work.kind, self._work.subject, outcome, message, attempt=which)

    def _known_or_rescheduled(self, ask: Callable[[], Any]) -> Any:
        """What the metadata database answers; where it is away, this delivery comes again, and finds what was done."""
        try:
            return ask()
        except Exception as error:
            if not metadata_database.is_away(error):
                raise
            logger.warning("the metadata database is away (%s): %s comes again", error, self._work.subject)
            self._reschedule(AWAY_SECONDS, "database_away")

    def _reschedule(self, seconds: float, reason: str) -> NoReturn:
        self._send_later(seconds)
        counters.count(metric_names.DELIVERIES_IGNORED, kind=self._work.kind, reason=reason)
        raise _ignored()

    def _send_later(self, seconds: float) -> None:
        """Have this message sent again; while Redis is away for longer, it stays the broker's, as not acknowledged."""
        deadline = time.monotonic() + RESCHEDULE_SECONDS
        while True:
            try:
                return delayed_messages.send_later(self._message, seconds)
            except Exception as error:
                if time.monotonic() > deadline:
                    raise _rejected(f"Redis is away: {error}") from error
                time.sleep(1)


def _begin(execution: Execution, attempt: int) -> Begun:
    with metadata_database.transaction() as connection:
        return _begin_in(connection, execution, attempt)


def _begin_in(connection: Connection, execution: Execution, attempt: int) -> Begun:
    """Have the query running and its attempt written, or neither, with the caller's commit: who stops it finds both."""
    if execution.kind == "sql":
        if not superset().fence.begin(connection, int(execution.subject)):
            return "ended"
        outbox.drop(connection, int(execution.subject))
    return "begun" if executions.begin(connection, execution, attempt) else "elsewhere"


def _unended(last: Attempt | None) -> bool:
    return last is not None and last.outcome is None


def _number(last: Attempt | None) -> int | None:
    return last.number if last else None


def _bounds() -> Resilience:
    return process_topology.current().resilience


def _identify_query(connection: Connection, asked: query_tasks.Work) -> Identified:
    found = superset().identification.query(connection, int(asked.subject), asked.sql)
    if found:
        return replace(found, username=asked.username)
    return Identified(None, "", asked.username, "", writes=True, submitted_at=None)


def _identify_chart(connection: Connection, asked: query_tasks.Work) -> Identified:
    found = superset().identification.chart(connection, asked.source, asked.user_id)
    job, status = None, None
    try:
        job = chart_jobs.find(asked.subject)
        status = "stopped" if job is None and abandoned_charts.is_stopped(asked.subject) else None
    except Exception:
        # Redis is away; the row then does not say how long the chart waited, and an abandoned one is executed.
        logger.debug("chart job %s could not be looked up", asked.subject, exc_info=True)
    submitted_at = job.submitted_at if job else None
    return replace(found, status=status, username=asked.username or found.username, submitted_at=submitted_at)


def _ignored() -> Exception:
    """Celery's way to end a task without a result: acknowledged, and its state left as it is."""
    return IgnoredError()


def _rejected(reason: str) -> Exception:
    """Celery's way to give a message back."""
    return RejectedError(reason, requeue=True)
