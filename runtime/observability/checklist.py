"""The checklist before production, each line from dated evidence of the running system: `superset-async checklist`.

Pure: `runtime.superset.doctor_api` reads the facts. Nothing is restarted to prove anything: what no evidence shows is missing,
with the way to get it. What only a Prometheus or a cluster knows, the command adds (`ops.checklist`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from runtime.broker.reserved_tasks import Reserved
from runtime.queries.executions import TABLE
from topology.model import RedisInstance, Topology

State = Literal["met", "missing"]
#: Executions of so many days are evidence, and users are counted within so many minutes.
DAYS, MINUTES = 30, 10
#: A store whose peak stayed below this share of its bound is large enough.
SIZED = 0.8
#: SQL for `Past`.
PAST = f"""
SELECT count(*), count(*) FILTER (WHERE outcome = 'timed_out'),
       coalesce(max(extract(epoch FROM ended_at - started_at)), 0), min(started_at), max(ended_at)
FROM {TABLE} WHERE ended_at > now() - make_interval(days => {DAYS})
"""
#: SQL for `Busiest`: of all windows the one with most users.
BUSIEST = f"""
SELECT date_bin(make_interval(mins => {MINUTES}), started_at, timestamptz '2000-01-01'), count(DISTINCT username), count(*),
       coalesce(percentile_disc(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - submitted_at)), 0)
FROM {TABLE} WHERE started_at > now() - make_interval(days => {DAYS}) GROUP BY 1 ORDER BY 2 DESC, 1 DESC LIMIT 1
"""


@dataclass(frozen=True)
class Server:
    """A Redis server: since when it runs, what it keeps, what it has used, and replicas that follow. None: it does not say.

    `marked` is when this platform first wrote to its coordination database; None on another server, and where nothing was kept.
    """

    instance: str
    started: datetime
    aof: bool | None
    peak_bytes: int
    max_bytes: int
    replicas: int
    marked: datetime | None = None


@dataclass(frozen=True)
class Past:
    """Executions of the last days: how many, how many that a limit ended, the longest in seconds, the first and the last."""

    executions: int
    timed_out: int
    longest: float
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True)
class Busiest:
    """The window of the last days with most users: when, how many, their queries, and the 95th percentile of their waits."""

    at: datetime
    users: int
    queries: int
    wait_seconds: float


@dataclass(frozen=True)
class Line:
    """One line of the list: whether it is met, what was seen (with its date), and how to get what is missing."""

    id: str
    line: str
    state: State
    evidence: str
    get: str


def report(
    topology: Topology,
    users: int,
    *,
    servers: Sequence[Server],
    workers: Sequence[Reserved],
    past: Past,
    busiest: Busiest | None,
    now: datetime,
) -> list[dict[str, Any]]:
    """The lines that the web tier can tell, as data. `users` are those to be expected at once."""
    broker = topology.instance(topology.database("broker").instance)
    lines = [
        *(_persistence(server, topology.instance(server.instance)) for server in servers if server.instance == broker.name),
        _concurrency(topology, workers, now),
        *(_sized(server) for server in servers),
        _limits(topology, past),
        _load(users, busiest),
        *_replicas(topology, servers, now),
    ]
    return [asdict(line) for line in lines]


def _persistence(server: Server, instance: RedisInstance) -> Line:
    said = "the broker is persistent, and a restart of it has lost nothing"
    if not server.aof:
        get = "superset-async:redis: {broker: {persistence: aof}}"
        return Line("broker-persistence", said, "missing", "INFO: aof_enabled 0", get)
    survived = server.marked is not None and server.marked < server.started
    kept = f"what was written {_day(server.marked)} is there" if server.marked else "nothing older is there"
    return Line(
        "broker-persistence",
        said,
        "met" if survived else "missing",
        f"aof on; {instance.name} runs since {_day(server.started)}, and {kept}",
        ""
        if survived
        else f"restart {instance.name} at a quiet hour (docs/operating.md, a drill), and run this again: it has not restarted "
        "since the platform first wrote to it, so nothing is proved",
    )


def _concurrency(topology: Topology, workers: Sequence[Reserved], now: datetime) -> Line:
    missing: list[str] = []
    seen: list[str] = []
    for pool in topology.pools:
        slots = [each.service.slots for each in workers if each.worker.split("@")[0] == pool.name]
        least = pool.concurrency * pool.min_workers
        seen.append(f"pool {pool.name}: {len(slots)} workers, {sum(slots)} slots")
        if sum(slots) < least:
            missing.append(f"pool {pool.name} has {sum(slots)} of at least {least} slots")
    limits = f"limits {topology.celery.soft_time_limit_seconds}/{topology.celery.time_limit_seconds} s"
    return Line(
        "workers",
        "workers run with the concurrency and the limits of the stack file",
        "missing" if missing else "met",
        "; ".join((*seen, limits, f"seen {_day(now)}")),
        "superset-async doctor" if missing else "",
    )


def _sized(server: Server) -> Line:
    bound = server.max_bytes
    met = bool(bound) and server.peak_bytes <= SIZED * bound
    return Line(
        f"size-{server.instance}",
        f"{server.instance} has held its results with room to spare",
        "met" if met else "missing",
        f"peak {server.peak_bytes / 2**20:.0f} of {bound / 2**20:.0f} MiB since {_day(server.started)}",
        "" if met else "superset-async size says what the load needs; superset-async:redis: maxmemory",
    )


def _limits(topology: Topology, past: Past) -> Line:
    limit = max(topology.statement_timeout_seconds, *(each.statement_timeout_seconds for each in topology.databases), 0)
    said = f"no execution outlives its database's statement timeout ({limit} s at most)"
    if not past.executions or past.last is None or past.first is None:
        return Line("timeouts", said, "missing", f"no execution in {DAYS} days", "run queries: superset-async query run")
    # A statement and what is done with its rows.
    met = past.longest <= topology.celery.soft_time_limit_seconds
    return Line(
        "timeouts",
        said,
        "met" if met else "missing",
        f"{past.executions} executions from {_day(past.first)} to {_day(past.last)}: the longest took {past.longest:.0f} s, "
        f"{past.timed_out} were ended by a limit",
        "" if met else "superset-async slow --by max names it; superset-async:databases: {NAME: {statement_timeout: …}}",
    )


def _load(users: int, busiest: Busiest | None) -> Line:
    seen = busiest.users if busiest else 0
    met = seen >= users
    evidence = (
        f"most users in {MINUTES} minutes: {busiest.users}, with {busiest.queries} queries, {_day(busiest.at)}; "
        f"95 % waited at most {busiest.wait_seconds:.1f} s"
        if busiest
        else f"no execution in {DAYS} days"
    )
    get = "" if met else "load it with so many users (docs/benchmarks/README.md), or have them at work, and run this again"
    return Line("load", f"it has carried {users} users at once", "met" if met else "missing", evidence, get)


def _replicas(topology: Topology, servers: Sequence[Server], now: datetime) -> Iterator[Line]:
    for server in servers:
        instance = topology.instance(server.instance)
        if instance.existing is not None:
            continue
        met = instance.replicas > 0 and server.replicas >= instance.replicas
        yield Line(
            f"failover-{server.instance}",
            f"another server takes over when {server.instance} is lost",
            "met" if met else "missing",
            f"{server.replicas} replicas follow it, the stack file says {instance.replicas}; seen {_day(now)}",
            "" if met else "superset-async:redis: {replicas: 2, sentinel: true}, on a cluster",
        )


def _day(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if at else "never"
