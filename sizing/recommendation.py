"""From a load to a stack: pools, workers, scaling, Redis, PostgreSQL, web, cost, and what gives way first when the load grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sizing.constants import MEASURED
from sizing.load import Load, QueryClass
from sizing.queueing import Service, Stream, merged, slots_needed, wait_quantile
from topology.connection_budget import connections_needed
from topology.model import Resources, TopologyName
from topology.plan import plan
from topology.presets import merge, settings_of
from topology.quantities import GIB, MIB, parse_memory

#: Of a worker whose children take 433 MB each: what the presets' memory limit of 2Gi holds.
MOST_CHILDREN = 4
#: The share of arrivals that the objective speaks of.
SHARE = 0.95
#: Of the busiest hour's rate, in the other hours.
QUIET_SHARE = 0.1
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class PoolSize:
    """A worker pool: `slots` that the busiest hour needs, in workers of `concurrency`; `wait` is what the model says of it,
    in s."""

    name: str
    rate: float
    service: Service
    slots: int
    concurrency: int
    min_workers: int
    max_workers: int
    queued_per_worker: int
    wait: float

    @property
    def holds(self) -> float:
        """How many times the busiest hour's rate keeps `max_workers` busy for the share of time that they may be."""
        return self.max_workers * self.concurrency * MEASURED.utilization / (self.rate * self.service.mean)


@dataclass(frozen=True)
class Limit:
    """A part that gives way at `times` today's busiest hour, and what a team does then."""

    part: str
    times: float
    then: str


@dataclass(frozen=True)
class Recommendation:
    """What a load needs. `config` are the keys of a stack file (without their prefix), which `plan` accepts."""

    load: Load
    topology: TopologyName
    pools: tuple[PoolSize, ...]
    web_replicas: int
    broker_bytes: int
    cache_bytes: int
    postgres_cores: float
    postgres_volume: int
    connections: int
    monthly_cost: float
    currency: str
    limits: tuple[Limit, ...]
    config: Mapping[str, Any]


def recommend(load: Load, topology: TopologyName | None = None, base: Mapping[str, Any] | None = None) -> Recommendation:
    """The stack for `load`; of `base` (keys of a stack file) all is kept that is not a size. StackError where `base` forbids it.

    Without `topology`: multi-tenant where there are tenants, minimal for what one worker or two serve, else enterprise.
    """
    pools = _pools(load)
    rate = sum(pool.rate for pool in pools)
    chosen = topology or _topology(load, pools)
    if settings_of(chosen)["workers"]["scaling"] is None:
        # Without a scaler there are as many workers as there are at rest.
        pools = tuple(replace(pool, min_workers=pool.max_workers) for pool in pools)
    cache = _cache_bytes(load)
    broker = _broker_bytes(load)
    web = max(1 if chosen == "minimal" else 2, math.ceil(rate * MEASURED.web_cpu_seconds / MEASURED.utilization))
    retention = settings_of(chosen)["maintenance"]["query_retention_days"]
    volume = _rounded(2 * _queries_a_day(load) * retention * MEASURED.metadata_bytes + 2 * GIB, GIB)
    postgres_cores = rate * MEASURED.postgres_cpu_seconds / MEASURED.utilization
    sizes = _config(
        load,
        topology=chosen,
        pools=pools,
        web=web,
        broker=broker,
        cache=cache,
        postgres_cores=postgres_cores,
        postgres_volume=volume,
    )
    config = merge(base or {"platform": "kubernetes"}, sizes)
    planned = plan("sized", config)
    connections = connections_needed(planned.celery, planned.pools, planned.web)
    config = merge(config, {"postgres": {"resources": _postgres_memory(connections, planned.postgres.resources)}})
    planned = plan("sized", config)
    rates = planned.rates
    busy = load.busy_hours / 24
    workers = sum(pool.max_workers * busy + pool.min_workers * (1 - busy) for pool in pools)
    return Recommendation(
        load=load,
        topology=chosen,
        pools=pools,
        web_replicas=web,
        broker_bytes=broker,
        cache_bytes=cache,
        postgres_cores=postgres_cores,
        postgres_volume=volume,
        connections=connections,
        monthly_cost=(workers * rates.worker_hour + rates.redis_hour) * HOURS_A_MONTH,
        currency=rates.currency,
        limits=_limits(rate, pools=pools, config=config, topology=chosen, load=load, connections=connections),
        config=config,
    )


def _topology(load: Load, pools: tuple[PoolSize, ...]) -> TopologyName:
    if load.tenants:
        return "multi-tenant"
    small = sum(pool.max_workers for pool in pools) <= 2 and _cache_bytes(load) <= 256 * MIB
    return "minimal" if small else "enterprise"


def _pools(load: Load) -> tuple[PoolSize, ...]:
    by_pool: dict[str, list[QueryClass]] = {}
    for query in load.classes:
        by_pool.setdefault(query.tenant or "default", []).append(query)
    return tuple(pool_size(name, classes, load.wait_p95) for name, classes in sorted(by_pool.items()))


def pool_size(name: str, classes: list[QueryClass], wait_p95: float) -> PoolSize:
    """The workers for `classes` in one queue.

    A worker has as many children as its memory holds and as its one core carries; one worker more than needed may be lost or
    still start. At rest there are as many as the other hours need. The scaler's target is the messages that one worker works
    off within the wait that is allowed: more of them mean that somebody waits longer.
    """
    streams = [query.stream for query in classes]
    whole = merged(streams)
    rate, service = whole.rate, whole.service
    slots = slots_needed(streams, SHARE, wait_p95, MEASURED.utilization)
    carried = int(MEASURED.utilization * service.mean / MEASURED.worker_cpu_seconds)
    concurrency = max(1, min(MOST_CHILDREN, carried))
    quiet = [Stream(stream.rate * QUIET_SHARE, stream.service) for stream in streams]
    least_slots = slots_needed(quiet, SHARE, wait_p95, MEASURED.utilization)
    most = math.ceil(slots / concurrency) + 1
    least = min(most, math.ceil(least_slots / concurrency))
    target = math.floor(concurrency * (MEASURED.utilization + wait_p95 / service.mean))
    wait = wait_quantile(math.ceil(slots / concurrency) * concurrency, streams, SHARE)
    return PoolSize(name, rate, service, slots, concurrency, least, most, max(1, min(50, target)), wait)


def _queries_a_day(load: Load) -> float:
    hours = load.busy_hours + (24 - load.busy_hours) * QUIET_SHARE
    return sum(query.per_hour for query in load.classes) * hours


def _cache_bytes(load: Load) -> int:
    """Every result of the busiest hour, for as long as results are kept (an hour in the presets), and a third more."""
    return int(sum(query.per_hour * query.stored_bytes for query in load.classes) * 4 / 3)


def _broker_bytes(load: Load) -> int:
    """A full queue for each pool, which is where submissions are refused, and as much again for states and events."""
    queues = len({query.tenant for query in load.classes})
    return 2 * queues * settings_of("enterprise")["resilience"]["max_queued"] * MEASURED.message_bytes


def _rounded(size: float, unit: int) -> int:
    return max(1, math.ceil(size / unit)) * unit


def _redis(maxmemory: int) -> dict[str, Any]:
    """Sizes of one server: its limit leaves a quarter for the fork, its volume what a rewrite beside a snapshot needs."""
    limit = _rounded(maxmemory / 0.75, 256 * MIB)
    volume = _rounded(maxmemory * MEASURED.redis_volume_factor, GIB)
    return {
        "maxmemory": _size(maxmemory),
        "volume_size": _size(volume),
        "resources": {"memory_request": _size(limit), "memory_limit": _size(limit)},
    }


def _postgres_memory(connections: int, now: Resources) -> dict[str, str]:
    """Connections hold at most half of the server's memory; the rest is for what they read."""
    needed = _rounded(2 * connections * MEASURED.connection_bytes, GIB)
    return {
        "memory_request": _size(max(now.memory_request_bytes, needed)),
        "memory_limit": _size(max(now.memory_limit_bytes, needed)),
    }


def _size(size: int) -> str:
    return f"{size // GIB}Gi" if size % GIB == 0 else f"{size // MIB}Mi"


def _config(
    load: Load,
    *,
    topology: TopologyName,
    pools: tuple[PoolSize, ...],
    web: int,
    broker: int,
    cache: int,
    postgres_cores: float,
    postgres_volume: int,
) -> dict[str, Any]:
    preset = settings_of(topology)
    scaling: dict[str, Any] | None = preset["workers"]["scaling"]
    overrides: dict[str, Any] = {}
    tenants: dict[str, Any] = {name: dict(told) for name, told in load.tenants.items()}
    for pool in pools:
        sizes: dict[str, Any] = {
            "concurrency": pool.concurrency,
            "min_workers": pool.min_workers,
            "max_workers": pool.max_workers,
        }
        if pool.name in tenants:
            tenants[pool.name] |= sizes
        else:
            if scaling is not None:
                sizes["scaling"] = scaling | {"queued_per_worker": pool.queued_per_worker}
            overrides[pool.name] = sizes
    config: dict[str, Any] = {
        "topology": topology,
        "web": {"min_replicas": min(web, preset["web"]["min_replicas"]), "max_replicas": web},
        "workers": {"prefetch_multiplier": 1},
        "pools": overrides or {"default": {}},
        "postgres": {"volume_size": _size(max(postgres_volume, int(str(parse_memory(preset["postgres"]["volume_size"])))))},
    }
    if topology == "minimal":
        needed = _rounded(broker + cache, 64 * MIB)
        config["redis"] = {"broker": _redis(max(needed, 384 * MIB))}
    else:
        config["redis"] = {
            "broker": _redis(max(_rounded(broker, 64 * MIB), 512 * MIB)),
            "cache": _redis(max(_rounded(cache, 64 * MIB), 512 * MIB)),
        }
        cores = max(1, math.ceil(postgres_cores))
        config["postgres"]["resources"] = {"cpu_request": str(cores), "cpu_limit": str(max(4, 2 * cores))}
        target = min((pool.queued_per_worker for pool in pools), default=50)
        config["workers"]["scaling"] = (scaling or {}) | {"queued_per_worker": target}
    if tenants:
        config["tenants"] = tenants
    return config


def _limits(
    rate: float,
    *,
    pools: tuple[PoolSize, ...],
    config: Mapping[str, Any],
    topology: TopologyName,
    load: Load,
    connections: int,
) -> tuple[Limit, ...]:
    """Every part with how far it carries, the first one to give way first."""
    full = merge(settings_of(topology), config)
    postgres = full["postgres"]["resources"]
    cores = float(str(postgres["cpu_limit"]).removesuffix("m")) / (1000 if str(postgres["cpu_limit"]).endswith("m") else 1)
    memory = int(str(parse_memory(postgres["memory_limit"])))
    caches = full["redis"]["cache"] or full["redis"]["broker"]
    busy = MEASURED.utilization
    limits = [
        Limit(
            f"workers of {pool.name}",
            pool.holds,
            f"raise max_workers of {pool.name}, and give long queries a tenant of their own",
        )
        for pool in pools
    ]
    limits += [
        Limit(
            "web tier",
            full["web"]["max_replicas"] * busy / (rate * MEASURED.web_cpu_seconds),
            "raise web.max_replicas; longer pauses between status requests help more",
        ),
        Limit(
            "PostgreSQL, processor",
            cores * busy / (rate * MEASURED.postgres_cpu_seconds),
            "a server of its own for the metadata (postgres.kind: existing), then PgBouncer against the cost of connections",
        ),
        Limit(
            "PostgreSQL, connections",
            memory * busy / (connections * MEASURED.connection_bytes),
            "PgBouncer in session mode, or more memory: each connection has a process of its own",
        ),
        Limit(
            "broker, one core",
            busy / (rate * MEASURED.redis_cpu_seconds),
            "caches on a server of their own first, then a broker for each group of pools: a stack each",
        ),
        Limit(
            "cache, memory",
            int(str(parse_memory(caches["maxmemory"]))) / (_cache_bytes(load) * 3 / 4),
            "raise redis.cache.maxmemory, keep results for less long, or spill large ones to a volume",
        ),
    ]
    return tuple(sorted(limits, key=lambda limit: limit.times))
