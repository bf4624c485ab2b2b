"""What is wrong with a platform, decided from one observation of it: `superset-async doctor`.

Pure: `runtime.superset.observation` reads the facts. Each finding has its evidence and what mends it. Four ways to fail: queries
that stay pending, results that fill their store, workers that crash, and many that ask for the same at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from runtime.broker.reserved_tasks import Reserved
from topology.model import Pool, Purpose, RedisInstance, Topology

Severity = Literal["warning", "critical"]
Mode = Literal["pending", "results", "workers", "stampede"]
#: Share of a bound (memory, connections, messages) from which it is a warning, and critical.
WARN, CRITICAL = 0.8, 0.95
#: A child's share of its worker's memory beyond which the next one like it is killed by the kernel.
CHILD_SHARE = 0.8
#: A worker that has said nothing for so many seconds is dead or hung: it speaks every five.
SILENT_SECONDS = 15.0
#: Beat's reaper sweeps every ten seconds at most.
BEAT_SECONDS = 120.0
#: Deaths of workers, and lost executions, of so many hours are news.
RECENT_HOURS = 1
#: So many deaths of workers in that time are no accident.
MANY_DEATHS = 3
#: So many identical statements at once are no coincidence.
IDENTICAL = 10
#: The append-only file's share of its volume beyond which a rewrite beside it has no room.
AOF_SHARE = 0.5


@dataclass(frozen=True)
class Result:
    """Rows that are stored for one query of SQL Lab."""

    query_id: int
    username: str
    stored_bytes: int


@dataclass(frozen=True)
class Store:
    """A Redis server as it says that it is. `lasting` are keys without a lifetime, by the purpose of a database of caches.

    `policy` and the rest are None, or 0, where the server does not say. `failing` names what it could not write to its disk.
    """

    instance: str
    answers: bool
    used_bytes: int = 0
    max_bytes: int = 0
    policy: str | None = None
    aof: bool | None = None
    aof_bytes: int = 0
    failing: Sequence[str] = ()
    lasting: Mapping[Purpose, int] = field(default_factory=dict[Purpose, int])


@dataclass(frozen=True)
class Death:
    """A worker whose process ended without a word, and was started anew at `at` (seconds since the epoch)."""

    worker: str
    at: float


@dataclass(frozen=True)
class Same:
    """Identical statements of SQL Lab that have not ended: how many, of how many users, and the number of the oldest."""

    count: int
    users: int
    oldest_query: int


@dataclass(frozen=True)
class Connections:
    """Sessions of the metadata database's server: how many, of how many, and those idle in a transaction for a minute."""

    used: int
    most: int
    forgotten: int
    by_user: Mapping[str, int]


@dataclass(frozen=True)
class Observed:
    """What was seen of a platform at one moment. What the broker's server alone knows is empty where that does not answer.

    `beat_seconds`: since beat's reaper last swept; None where it never did. `silent`: seconds since workers spoke that have
    neither spoken lately nor said that they stop. `waiting`: messages by queue.
    `lost`: executions by worker that were lost lately, with their child or worker.
    """

    now: float
    stores: Sequence[Store]
    connections: Connections
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])
    oldest: Mapping[str, float] = field(default_factory=dict[str, float])
    workers: Sequence[Reserved] = ()
    beat_seconds: float | None = None
    silent: Mapping[str, float] = field(default_factory=dict[str, float])
    deaths: Sequence[Death] = ()
    lost: Mapping[str, int] = field(default_factory=dict[str, int])
    same: Sequence[Same] = ()
    largest: Sequence[Result] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what it is, what was seen, and the command or setting that mends it."""

    id: str
    mode: Mode
    severity: Severity
    what: str
    evidence: Sequence[str]
    fix: str


def report(topology: Topology, seen: Observed) -> dict[str, Any]:
    """The findings as data, with the stack that they are of and its platform."""
    found = [asdict(finding) for finding in diagnose(topology, seen)]
    return {"stack": topology.stack, "platform": topology.platform, "namespace": topology.namespace, "findings": found}


def diagnose(topology: Topology, seen: Observed) -> list[Finding]:
    """What is wrong, the worst first; nothing for a healthy platform, however busy."""
    found = [*_pending(topology, seen), *_results(topology, seen), *_workers(topology, seen), *_stampede(topology, seen)]
    return sorted(found, key=lambda each: each.severity != "critical")


def _pending(topology: Topology, seen: Observed) -> Iterator[Finding]:
    broker = topology.instance(topology.database("broker").instance)
    store = next((each for each in seen.stores if each.instance == broker.name), None)
    if store is not None and not store.answers:
        yield Finding(
            "broker-unreachable",
            "pending",
            "critical",
            f"the broker {broker.name} does not answer: no query can be sent, and none reaches a worker",
            [f"{broker.name} at {broker.host}:{broker.port} does not answer the web tier"],
            _start(topology, broker.name, f"statefulset/{broker.name}"),
        )
        # Nothing else is known of queues and workers.
        return
    yield from _silent(topology, seen)
    if seen.beat_seconds is not None and seen.beat_seconds >= BEAT_SECONDS:
        yield Finding(
            "beat-silent",
            "pending",
            "critical",
            "beat is dead or hung: nothing sends lost queries again, ends them, or clears what is old",
            [f"its reaper last swept {seen.beat_seconds:.0f} s ago; it sweeps every ten seconds at most"],
            f"make down STACK={topology.stack} && make up STACK={topology.stack}"
            if topology.platform == "local"
            else f"kubectl -n {topology.namespace} rollout restart deployment/beat",
        )
    drained = [worker.worker for worker in seen.workers if not worker.service.queues]
    for queue in topology.celery.queues:
        if any(queue in worker.service.queues for worker in seen.workers):
            continue
        pools = [pool for pool in topology.pools if queue in pool.queues]
        asked = [name for name in drained if name.split("@")[0] in {pool.name for pool in pools}]
        waiting = seen.waiting.get(queue, 0)
        evidence = [f"{waiting} messages wait, the oldest for {seen.oldest.get(queue, 0.0):.0f} s"] if waiting else []
        evidence += [f"{name} was drained and takes no more" for name in asked]
        evidence += [f"workers that live: {', '.join(sorted(each.worker for each in seen.workers)) or 'none'}"]
        yield Finding(
            "queue-unserved" if seen.workers else "no-worker",
            "pending",
            "critical",
            f"no worker listens to queue {queue}: its queries stay pending" if seen.workers else "no worker lives",
            evidence,
            "; ".join(f"superset-async worker resume {name}" for name in asked)
            or "; ".join(_start_workers(topology, pool) for pool in pools),
        )
        if not seen.workers:
            break
    yield from _hoarding(topology, seen)


def _silent(topology: Topology, seen: Observed) -> Iterator[Finding]:
    for name, seconds in sorted(seen.silent.items()):
        if seconds >= SILENT_SECONDS:
            yield Finding(
                "worker-silent",
                "pending",
                "critical",
                f"worker {name} is dead or hung",
                [f"it has said nothing for {seconds:.0f} s, and did not say that it stops; it speaks every five seconds"],
                _restart(topology, _pool_of(topology, name)),
            )


def _hoarding(topology: Topology, seen: Observed) -> Iterator[Finding]:
    for worker in seen.workers:
        behind = len(worker.tasks) - worker.service.slots
        idle = [
            other
            for other in seen.workers
            if other.worker != worker.worker
            and set(other.service.queues) & set(worker.service.queues)
            and len(other.tasks) < other.service.slots
        ]
        if behind > 0 and idle:
            pool = _pool_of(topology, worker.worker)
            free = sum(other.service.slots - len(other.tasks) for other in idle)
            yield Finding(
                "prefetch-hoarding",
                "pending",
                "warning",
                f"worker {worker.worker} holds {behind} queries back that others could run now",
                [
                    f"it has taken {len(worker.tasks)} and runs {worker.service.slots} at once",
                    f"{free} slots are free on {', '.join(other.worker for other in idle)}",
                    f"prefetch_multiplier of pool {pool.name} is {pool.prefetch_multiplier}",
                ],
                f"superset-async:pools: {{{pool.name}: {{prefetch_multiplier: 1}}}} in the stack file, then "
                + _deploy(topology),
            )


def _results(topology: Topology, seen: Observed) -> Iterator[Finding]:
    for store in seen.stores:
        instance = topology.instance(store.instance)
        if not store.answers:
            if not instance.carries_broker:
                yield Finding(
                    "results-unreachable",
                    "results",
                    "critical",
                    f"{instance.name}, which holds caches and results, does not answer",
                    [f"{instance.name} at {instance.host}:{instance.port} does not answer the web tier"],
                    _start(topology, instance.name, f"statefulset/{instance.name}"),
                )
            continue
        yield from _memory(topology, seen, store, instance)
        yield from _settings(topology, store, instance)
        for purpose, keys in store.lasting.items():
            yield Finding(
                "keys-without-lifetime",
                "results",
                "warning",
                f"{keys} keys of {purpose} on {instance.name} have no lifetime: they are never evicted",
                [f"INFO keyspace: {keys} keys without an expiry in database {topology.database(purpose).number}"],
                f"{_as_operator(instance)} -n {topology.database(purpose).number} FLUSHDB (it holds caches only; what writes "
                "there without a lifetime is none of this platform's processes)",
            )


def _as_operator(instance: RedisInstance) -> str:
    """A command for Redis's operator, without its password: it asks for that."""
    return f"valkey-cli --user operator --askpass -h {instance.host} -p {instance.port}"


def _memory(topology: Topology, seen: Observed, store: Store, instance: RedisInstance) -> Iterator[Finding]:
    if store.max_bytes and store.used_bytes >= WARN * store.max_bytes:
        used = store.used_bytes / store.max_bytes
        evidence = [f"{_size(store.used_bytes)} of {_size(store.max_bytes)} used ({used:.0%}), policy {store.policy}"]
        evidence += [
            f"query {each.query_id} of {each.username or 'nobody'}: {_size(each.stored_bytes)} of rows are stored"
            for each in seen.largest
        ]
        evidence += [f"append-only file: {_size(store.aof_bytes)}"] if store.aof else []
        key = "cache" if not instance.carries_broker else "broker"
        yield Finding(
            "redis-memory",
            "results",
            "critical" if used >= CRITICAL else "warning",
            f"{instance.name} is nearly full: caches are evicted"
            + (", and what has no lifetime is refused" if instance.carries_broker else ""),
            evidence,
            f"superset-async:redis: {{{key}: {{maxmemory: …}}}} higher, or superset-async:caching: {{query_results_ttl: …}} "
            f"lower in the stack file, then {_deploy(topology)}",
        )


def _settings(topology: Topology, store: Store, instance: RedisInstance) -> Iterator[Finding]:
    if instance.existing is not None:
        # Someone else's settings; what must hold for a broker must hold all the same.
        wrong = store.policy is not None and instance.carries_broker and store.policy.startswith("allkeys")
    else:
        wrong = store.policy is not None and store.policy != instance.maxmemory_policy
    if wrong:
        danger = instance.carries_broker and str(store.policy).startswith("allkeys")
        yield Finding(
            "redis-policy",
            "results",
            "critical" if danger else "warning",
            f"{instance.name} evicts by another policy than the stack file says"
            + (": queued queries are lost when it is full" if danger else ""),
            [f"maxmemory-policy is {store.policy}, and should be {instance.maxmemory_policy}"],
            f"{_as_operator(instance)} CONFIG SET maxmemory-policy {instance.maxmemory_policy}",
        )
    if instance.existing is None and instance.persistence == "aof" and store.aof is False:
        yield Finding(
            "redis-persistence",
            "results",
            "critical" if instance.carries_broker else "warning",
            f"{instance.name} keeps no append-only file: what is queued is lost when it restarts",
            ["aof_enabled is 0, and the stack file says persistence: aof"],
            f"{_as_operator(instance)} CONFIG SET appendonly yes",
        )
    if store.failing:
        yield Finding(
            "redis-disk",
            "results",
            "critical",
            f"{instance.name} cannot write its files",
            [f"INFO persistence: {what} is not ok" for what in store.failing],
            "free its disk, or give it more: superset-async:redis: volume_size in the stack file; it writes again by itself",
        )
    if instance.existing is None and store.aof_bytes >= AOF_SHARE * instance.volume_bytes:
        yield Finding(
            "aof-size",
            "results",
            "warning",
            f"the append-only file of {instance.name} takes more than half of its volume",
            [f"{_size(store.aof_bytes)} of a volume of {_size(instance.volume_bytes)}"],
            f"{_as_operator(instance)} BGREWRITEAOF; superset-async:redis: volume_size in the stack file",
        )


def _workers(topology: Topology, seen: Observed) -> Iterator[Finding]:
    since = seen.now - RECENT_HOURS * 3600
    names = sorted({death.worker for death in seen.deaths if death.at >= since})
    for name in names:
        times = sorted(death.at for death in seen.deaths if death.worker == name and death.at >= since)
        yield Finding(
            "worker-died",
            "workers",
            "critical" if len(times) >= MANY_DEATHS else "warning",
            f"worker {name} ended without a word and was started anew, {_times(len(times))} in the last hour",
            [f"the last time {seen.now - times[-1]:.0f} s ago", *_ooms(seen, name)],
            _logs(topology, _pool_of(topology, name)) + " says why; where it is memory, see worker-memory",
        )
    for worker in seen.workers:
        if worker.service.oom_kills:
            pool = _pool_of(topology, worker.worker)
            yield Finding(
                "worker-oom",
                "workers",
                "critical",
                f"the kernel has killed processes of worker {worker.worker} for want of memory",
                _ooms(seen, worker.worker),
                _more_memory(topology, pool),
            )
    for name, count in sorted(seen.lost.items()):
        yield Finding(
            "child-lost",
            "workers",
            "warning",
            f"worker {name} has lost the process of a query, {_times(count)} in the last hour",
            [f"{count} executions ended as lost", *_ooms(seen, name)],
            _logs(topology, _pool_of(topology, name)) + " says which signal ended it; SIGKILL is memory, or a person",
        )
    yield from _children(topology, seen)
    yield from _connections(topology, seen.connections)


def _ooms(seen: Observed, name: str) -> list[str]:
    kills = next((each.service.oom_kills for each in seen.workers if each.worker == name), 0)
    return [f"its control group counts {_times(kills)} that the kernel killed for want of memory"] if kills else []


def _children(topology: Topology, seen: Observed) -> Iterator[Finding]:
    for worker in seen.workers:
        pool = _pool_of(topology, worker.worker)
        share = pool.resources.memory_limit_bytes / pool.concurrency
        if worker.service.child_peak_bytes >= CHILD_SHARE * share:
            yield Finding(
                "worker-memory",
                "workers",
                "warning",
                f"a child of worker {worker.worker} has needed more memory than its share: the kernel kills the next like it",
                [
                    f"peak {_size(worker.service.child_peak_bytes)} of {_size(share)} "
                    f"({_size(pool.resources.memory_limit_bytes)} for {pool.concurrency} children)",
                    f"now {_size(worker.service.child_bytes)}, grown by {_size(worker.service.child_grown_bytes)}",
                ],
                _more_memory(topology, pool),
            )


def _connections(topology: Topology, seen: Connections) -> Iterator[Finding]:
    if seen.used >= WARN * seen.most:
        most = sorted(seen.by_user.items(), key=lambda each: -each[1])[:5]
        yield Finding(
            "connections-exhausted",
            "workers",
            "critical" if seen.used >= CRITICAL * seen.most else "warning",
            "the metadata database is nearly out of connections: processes that find none fail",
            [
                f"pg_stat_activity: {seen.used} of {seen.most}",
                "by user: " + ", ".join(f"{user} {count}" for user, count in most),
                f"idle in a transaction for more than a minute: {seen.forgotten}",
            ],
            "end what is not this platform's (SELECT pg_terminate_backend(pid) …), or raise superset-async:postgres: "
            f"{{max_connections: …}} in the stack file, then {_deploy(topology)}",
        )


def _stampede(topology: Topology, seen: Observed) -> Iterator[Finding]:
    for same in seen.same:
        if same.count >= IDENTICAL:
            yield Finding(
                "stampede",
                "stampede",
                "warning",
                f"{same.count} identical statements of {same.users} users wait or run at once",
                [
                    f"the oldest is query {same.oldest_query}",
                    *(f"queue {queue}: {count} messages wait" for queue, count in seen.waiting.items() if count),
                ],
                f"superset-async query list; superset-async query stop ID of all but {same.oldest_query}. As a chart they run "
                "once: superset-async:caching: {single_flight: true}",
            )
    bound = topology.resilience.max_queued
    for queue, waiting in seen.waiting.items():
        if waiting >= WARN * bound:
            yield Finding(
                "queue-deep",
                "stampede",
                "critical" if waiting >= CRITICAL * bound else "warning",
                f"queue {queue} is nearly full: submissions beyond its bound are refused",
                [f"{waiting} messages wait, and {bound} are the most (resilience.max_queued)"],
                "superset-async query list shows whose; more workers: superset-async:pools: max_workers in the stack file, then "
                + _deploy(topology),
            )


def _pool_of(topology: Topology, worker: str) -> Pool:
    """The pool of a worker by its node name, `pool@host`; the first one for a name that is none's."""
    name = worker.split("@", maxsplit=1)[0]
    return next((pool for pool in topology.pools if pool.name == name), topology.pools[0])


def _restart(topology: Topology, pool: Pool) -> str:
    if topology.platform == "local":
        return f"make down STACK={topology.stack} && make up STACK={topology.stack}"
    return f"kubectl -n {topology.namespace} rollout restart deployment/worker-{pool.name}"


def _start_workers(topology: Topology, pool: Pool) -> str:
    if topology.platform == "local":
        return f"make up STACK={topology.stack}"
    return (
        f"kubectl -n {topology.namespace} get pods; kubectl -n {topology.namespace} describe deployment/worker-{pool.name}"
    )


def _start(topology: Topology, process: str, workload: str) -> str:
    if topology.platform == "local":
        return f"make up STACK={topology.stack} ({process} is one of its processes)"
    return f"kubectl -n {topology.namespace} get pods; kubectl -n {topology.namespace} describe {workload}"


def _logs(topology: Topology, pool: Pool) -> str:
    if topology.platform == "local":
        return f"superset-async logs worker-{pool.name} --stack {topology.stack}"
    return f"kubectl -n {topology.namespace} logs deployment/worker-{pool.name} --previous"


def _deploy(topology: Topology) -> str:
    return f"make up STACK={topology.stack}" if topology.platform == "local" else f"pulumi up -s {topology.stack}"


def _more_memory(topology: Topology, pool: Pool) -> str:
    return (
        f"superset-async:pools: {{{pool.name}: {{resources: {{memory_limit: …}}}}}} higher, max_memory_per_child or concurrency "
        f"lower in the stack file, then {_deploy(topology)}"
    )


def _size(size: float) -> str:
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
