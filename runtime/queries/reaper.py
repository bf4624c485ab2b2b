"""What ends every query and chart that nobody will end any more, so that its user learns it: a thread of Celery beat.

A worker that is killed, a message that the broker lost, a broker that came back with messages which no worker remembers: as
shipped (Superset 6.1, Celery 5.6) each leaves something waiting for ever, or for the visibility timeout. A sweep compares what
should be going on (open rows of the query table, registered chart jobs, delivered messages) with who says that it is (leases,
what workers have reserved, the queues). What is lost in two sweeps is put back into its queue, or ended with a message.

It ends nothing while the living may not have been heard: for a while after a restart or failover of Redis, after a sweep that
failed or whose own write Redis refused (a full Redis refuses the workers' too), and after it has itself been away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runtime.broker import delayed_messages, queues, reserved_tasks
from runtime.broker.messages import Messages
from runtime.environment import coordination, counters, leases, metadata_database, process_topology, redis_databases, secrets
from runtime.environment.redis_clients import client
from runtime.environment.restarts import RestartDetector
from runtime.queries import (
    abandoned_charts,
    chart_jobs,
    chart_stops,
    completions,
    execution_leases,
    final_states,
    outbox,
    query_tasks,
)
from runtime.queries.interfaces import OpenQuery, superset
from runtime.queries.query_tasks import SQL_TASK
from runtime.results import followers
from runtime.tenants.router import CHART_DATA_TASK, SQL_LAB_TASK
from topology import metric_names
from topology.model import Topology

logger = logging.getLogger(__name__)

#: Key of the advisory lock that the one reaper at work holds.
LOCK = 0x5355_5054

WORKER_LOST = (
    "The worker that ran this query is gone: it was killed, or lost its connection to the broker for good. What the query did "
    "in the database is cancelled where the database can. If it only reads, run it again; if it writes, look first at what it "
    "has written."
)
MESSAGE_LOST = (
    "This query was lost before a worker began it: the broker does not have it any more. Nothing was executed. Run it again."
)
NOT_SENT = (
    "This query was not handed to a worker: the request that submitted it ended before it could. Nothing was executed. Run it "
    "again."
)
REQUEST_LOST = (
    "The web process that ran this query is gone, or gave up waiting for it. If the query only reads, run it again, "
    "asynchronously where it takes long; if it writes, look first at what it has written."
)
JOB_LOST = (
    "This chart's query was lost: its worker was killed, or the broker does not have it any more. Load the chart again."
)


@dataclass(frozen=True)
class Pace:
    """Seconds: between sweeps (`every`); for which something must look lost (`apart`); for which nothing is ended after Redis or
    the reaper was away (`quiet`); after which a submission must have reached the broker (`unsent`), and a synchronous query
    that runs must have ended (`synchronous`)."""

    every: float
    apart: float
    quiet: float
    unsent: float
    synchronous: float


def pace(topology: Topology) -> Pace:
    """As slow as the stack's bound allows: what is lost shows when its worker's reservations have expired, and for `apart`."""
    bound = topology.resilience.final_state_seconds
    every = min(10.0, (bound - reserved_tasks.TTL_SECONDS) / 2)
    limits = (topology.statement_timeout_seconds, topology.web.request_timeout_seconds)
    longest = max(*limits, *(database.statement_timeout_seconds for database in topology.databases))
    return Pace(
        every=every,
        apart=every,
        quiet=max(reserved_tasks.TTL_SECONDS + reserved_tasks.PUBLISH_SECONDS, leases.SILENCE_SECONDS),
        unsent=bound / 2,
        synchronous=longest + bound,
    )


@dataclass(frozen=True)
class Seen:
    """What one sweep saw. `delivered`: task id by delivery tag. `alive`: ids of the tasks that a living process has.
    `elsewhere`: ids of those that wait in a queue, or for their time."""

    queries: tuple[OpenQuery, ...]
    jobs: tuple[chart_jobs.ChartJob, ...]
    delivered: Mapping[str, str]
    alive: frozenset[str]
    elsewhere: frozenset[str]
    now: float


@dataclass(frozen=True)
class Lost:
    """What nobody has: messages by their delivery tags, queries by their ids, chart jobs by theirs."""

    messages: frozenset[str]
    queries: frozenset[int]
    jobs: frozenset[str]


def lost(seen: Seen, pace: Pace) -> Lost:
    """What a sweep found lost, for now."""
    known = seen.alive | seen.elsewhere | set(seen.delivered.values())

    def is_lost(query: OpenQuery) -> bool:
        if query.task_id is None:
            # Written down, and not executed at once: its request died, or lost its database, before it was sent.
            return query.seconds > (pace.synchronous if query.running else pace.unsent)
        return query.task_id not in known and (query.running or query.seconds > pace.unsent)

    return Lost(
        messages=frozenset(tag for tag, task in seen.delivered.items() if task not in seen.alive),
        queries=frozenset(query.id for query in seen.queries if is_lost(query)),
        jobs=frozenset(
            job.job_id for job in seen.jobs if job.task_id not in known and seen.now - job.submitted_at > pace.unsent
        ),
    )


class Suspects:
    """Since when each thing has looked lost without a break."""

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}

    def due(self, found: Iterable[Hashable], now: float, apart: float) -> list[Any]:
        """Those of `found` that have looked lost for `apart` seconds; what is not in `found` looks lost no more."""
        self._since = {thing: self._since.get(thing, now) for thing in found}
        return [thing for thing, since in self._since.items() if now - since >= apart]

    def forget(self, thing: Hashable) -> None:
        """What was done about it: it has to look lost anew."""
        self._since.pop(thing, None)


class Reaper:
    """Sweeps and acts. `clock` is monotonic; everything else that it sees is real.

    `sweep` raises what Redis or the database raises.
    """

    def __init__(self, messages: Messages, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._messages = messages
        self._pace = pace
        self._clock = clock
        self._suspects = Suspects()
        self._restarts = RestartDetector()
        self._swept_at = float("-inf")
        self._quiet_until = 0.0

    def sweep(self) -> None:
        """See what is lost, and end or restore what was lost for long enough."""
        if self._clock() - self._swept_at > 2 * self._pace.every + self._pace.apart:
            self._be_quiet()
        try:
            self._notice_absence()
            seen = self._see()
            # What was seen before a restart and after it is not one picture.
            self._notice_absence()
        except Exception:
            self._be_quiet()
            raise
        finally:
            self._swept_at = self._clock()
        running = max((query.seconds for query in seen.queries if query.running and query.task_id), default=0.0)
        coordination.client().set(coordination.key(coordination.OLDEST_RUNNING), running)
        found = lost(seen, self._pace)
        if self._may_cancel(found, seen):
            superset().ending.expect()
        now = self._clock()
        things = [("message", it) for it in found.messages]
        things += [("query", str(it)) for it in found.queries] + [("job", it) for it in found.jobs]
        due = self._suspects.due(things, now, self._pace.apart)
        if now >= self._quiet_until:
            self._act(due, seen)
            self._swept_at = self._clock()

    def _notice_absence(self) -> None:
        """Be quiet where Redis may have lost leases and reservations: until the living have taken and published them again.

        It writes, too, so that a Redis that refuses what workers publish is noticed as one that is away.
        """
        client = coordination.client()
        if not self._restarts.is_same(client):
            self._be_quiet()
        client.set(coordination.key(coordination.REAPED_AT), time.time())
        client.set(coordination.key(coordination.MARKED_AT), time.time(), nx=True)

    def _be_quiet(self) -> None:
        self._quiet_until = self._clock() + self._pace.quiet

    def _see(self) -> Seen:
        # In the order in which tasks move: what moves during a sweep is seen where it comes to.
        queries, registered = _open_queries(), tuple(chart_jobs.registered())
        wanted = {it.task_id for it in queries if it.task_id} | {job.task_id for job in registered}
        alive = _leased(wanted)
        elsewhere = self._messages.waiting() if wanted - alive else set[str]()
        elsewhere |= delayed_messages.waiting()
        delivered = self._messages.delivered()
        alive |= reserved_tasks.reserved() | _leased(wanted | set(delivered.values()))
        return Seen(queries, registered, delivered, frozenset(alive), frozenset(elsewhere), time.time())

    def _may_cancel(self, found: Lost, seen: Seen) -> bool:
        """Whether a statement of what is lost, for now, may have to be cancelled once it is."""
        if any(query.running and query.id in found.queries for query in seen.queries):
            return True
        asked = (_query_of(seen.delivered[tag]) for tag in found.messages)
        return any(final_states.left_write(query_id) for query_id in asked if query_id is not None)

    def _act(self, due: Sequence[tuple[str, str]], seen: Seen) -> None:
        queries = {str(query.id): query for query in seen.queries}
        jobs = {job.job_id: job for job in seen.jobs}
        running: list[OpenQuery] = []
        for kind, name in due:
            if kind == "query" and queries[name].running:
                running.append(queries[name])
                continue
            with self._tried((kind, name)):
                match kind:
                    case "message":
                        self._restore(name, seen.delivered[name])
                    case "query":
                        self._end_unstarted(queries[name])
                    case _:
                        self._end_job(jobs[name])
        self._end_running(running)
        ended = {name for kind, name in due if kind == "job"}
        self._stop_abandoned([job for job in seen.jobs if job.job_id not in ended], seen.now)

    def _stop_abandoned(self, jobs: Iterable[chart_jobs.ChartJob], now: float) -> None:
        """Stop the charts that nobody waits for any more, whether they wait or run."""
        # A job can be abandoned only once it is as old as a channel has to be silent.
        old = [job for job in jobs if now - job.submitted_at > abandoned_charts.SILENT_SECONDS]
        channels = [_channels(job) for job in old]
        polled = abandoned_charts.polled({channel for each in channels for channel in each})
        for job, waiting in zip(old, channels, strict=True):
            if abandoned_charts.is_wanted(waiting, polled, job.submitted_at, now):
                continue
            with self._tried(("job", job.job_id)):
                # One that has joined it since is waited for.
                if chart_stops.stop(job, len(waiting) - 1, abandoned_charts.ABANDONED):
                    logger.info("chart job %s was stopped: nobody waits for it any more", job.job_id)
                    counters.count(metric_names.REAPED, what="abandoned")

    @contextmanager
    def _tried(self, *things: tuple[str, str]) -> Generator[None]:
        """In the block something is done about `things`. Redis may be full, which keeps it from one thing and not from the
        next: what fails is due again at the next sweep."""
        try:
            yield
        except Exception:
            logger.warning("%s are lost, and could not be ended yet", things, exc_info=True)
        else:
            for thing in things:
                self._suspects.forget(thing)

    def _restore(self, tag: str, task: str) -> None:
        if (query_id := _query_of(task)) is not None and final_states.left_write(query_id) and not _leased([task]):
            # It would be refused at its next delivery, which may be behind hours of work. Before its message is back: from
            # then on a worker may have it.
            ended = final_states.end_lost({query_id: query_tasks.LOST_WRITE})
            if ended[query_id]:
                _count_lost(query_id)
        where = self._messages.restore(tag)
        if where:
            logger.warning("no worker has the message of task %s any more: it is back in queue %s", task, where)
            counters.count(metric_names.REAPED, what="message")
        elif where is not None:
            logger.warning("removed what was delivered as %s and is no message of a queue", tag)
            counters.count(metric_names.POISON, where="unacked")

    def _end_running(self, queries: Sequence[OpenQuery]) -> None:
        """All at once: each waits for its database to cancel its statement."""
        if queries:
            with self._tried(*(("query", str(query.id)) for query in queries)):
                # What was done before this may have taken long.
                alive = _leased(query.task_id for query in queries if query.task_id)
                gone = {query.id: query for query in queries if query.task_id not in alive}
                messages = {query.id: _message(query) for query in gone.values()}
                for query_id, ended in final_states.end_lost(messages).items():
                    self._say_ended(gone[query_id], messages[query_id], ended)

    def _end_unstarted(self, query: OpenQuery) -> None:
        if not (query.task_id and self._sent_again(query.id)):
            message = _message(query)
            self._say_ended(query, message, final_states.end("sql", str(query.id), "lost", message))

    def _say_ended(self, query: OpenQuery, message: str, ended: bool) -> None:
        if ended:
            logger.warning("query %s was lost, and is failed: %s", query.id, message)
            counters.count(metric_names.REAPED, what="query")
            if query.task_id:
                _count_lost(query.id)

    def _sent_again(self, query_id: int) -> bool:
        """Send the copy of a message that the broker lost before a worker had it, if that was not done yet."""
        with metadata_database.transaction() as connection:
            message = outbox.again(connection, query_id)
            if message is None:
                return False
            delayed_messages.send_later(message, 0)
        logger.warning("query %s was lost before a worker began it, and is sent again", query_id)
        counters.count(metric_names.REAPED, what="copy")
        return True

    def _end_job(self, job: chart_jobs.ChartJob) -> None:
        superset().ending.chart(job.metadata, JOB_LOST)
        # The event has ended its registration where Redis took both; this is for those that it did not.
        chart_jobs.remove(job.metadata)
        final_states.end("chart", job.job_id, "lost", JOB_LOST)
        logger.warning("chart job %s was lost, and its browser is told", job.job_id)
        counters.count(metric_names.REAPED, what="job")
        completions.count(CHART_DATA_TASK, job.queue, "", "lost")


def _channels(job: chart_jobs.ChartJob) -> list[str]:
    """The channel of a job, and those of the jobs that follow it."""
    return [str(each["channel_id"]) for each in (job.metadata, *(it.metadata for it in followers.following(job.job_id)))]


def _count_lost(query_id: int) -> None:
    """Count a task that no worker ended."""
    with metadata_database.transaction() as connection:
        queue, tenant = completions.place_of_query(connection, query_id)
    completions.count(SQL_LAB_TASK, queue, tenant, "lost")


def _message(query: OpenQuery) -> str:
    if query.running:
        return REQUEST_LOST if query.task_id is None else WORKER_LOST
    return NOT_SENT if query.task_id is None else MESSAGE_LOST


def _open_queries() -> tuple[OpenQuery, ...]:
    with metadata_database.transaction() as connection:
        return tuple(superset().identification.open_queries(connection))


def _query_of(task: str) -> int | None:
    """The id of the query of SQL Lab whose task this is."""
    subject = task.removeprefix(SQL_TASK)
    return int(subject) if task.startswith(SQL_TASK) and subject.isdecimal() else None


def _leased(asked: Iterable[str]) -> set[str]:
    """Those of the tasks `asked` that some process executes."""
    tasks = list(asked)
    sql = [task.removeprefix(SQL_TASK) for task in tasks if task.startswith(SQL_TASK)]
    charts = [task for task in tasks if task and not task.startswith(SQL_TASK)]
    executed = {f"{SQL_TASK}{subject}" for subject in execution_leases.owners("sql", sql)}
    return executed | set(execution_leases.owners("chart", charts))


@contextmanager
def alone() -> Generator[bool]:
    """Whether this is the only reaper at work, for the length of the block.

    The lock is a transaction's, which ends with the block: a pooler in transaction mode would keep a session's.
    """
    with metadata_database.connection() as connection:
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield bool(connection.exec_driver_sql("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,)).scalar())


def of_environment(env: Mapping[str, str]) -> tuple[Reaper, Pace]:
    """The reaper of the topology that the environment names; ConfigurationError where it names none."""
    topology = process_topology.load_topology(env)
    database = redis_databases.database(topology, secrets.read(topology, env), "broker")
    chosen = pace(topology)
    # What waits in the queue of a tenant that was removed is not lost: it moves to the default queue.
    names = queues.Everything(queues.of(topology, env), env)
    return Reaper(Messages(client(database), database.prefix, names), chosen), chosen


def run(reaper: Reaper, every: float, after: Callable[[], None]) -> None:
    """Sweep for ever, and call `after` after each sweep. Whatever goes wrong with one sweep is logged, and the next one is as
    before.
    """
    while True:
        try:
            with alone() as mine:
                if mine:
                    reaper.sweep()
            after()
        except Exception:
            logger.exception("this sweep for lost queries failed; the next one is in %s s", every)
        time.sleep(every)
