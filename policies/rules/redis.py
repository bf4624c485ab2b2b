"""Rules about Redis: what carries the broker loses nothing, what holds caches never grows without end."""

from __future__ import annotations

from collections.abc import Iterator

from policies.configurations import CACHES, Configuration, readable
from policies.graph import Graph, at
from policies.rule import Option, Options, Rules
from policies.servers import RedisServer, redis_servers, sentinels
from policies.workloads import Container
from topology.quantities import format_memory
from topology.valkey_conf import volume_needed

RULES = Rules("policy-redis")


def _brokers(graph: Graph) -> list[RedisServer]:
    """Servers that carry a broker; where no configuration is in the graph, every server may."""
    configurations = graph.derive(readable)
    if not configurations:
        # One that is not known yet may say that a server carries none.
        graph.require_complete()
        return graph.derive(redis_servers)
    return list({server.resource.urn: server for each in configurations for server in each.broker}.values())


def _cache_servers(graph: Graph) -> list[RedisServer]:
    return list({each.resource.urn: each for found in graph.derive(readable) for each in found.cache_servers}.values())


def _in_pods(graph: Graph) -> list[RedisServer]:
    return [each for each in graph.derive(redis_servers) if each.container]


def _watched(graph: Graph) -> list[RedisServer]:
    """Brokers in pods that a Sentinel can fail over."""
    if not graph.derive(sentinels):
        return []
    return [each for each in graph.derive(_brokers) if each.container and each.servers > 1]


@RULES.rule(
    "redis-broker-evicts",
    _brokers,
    fix="Set maxmemory-policy noeviction, or volatile-lru where caches share the server",
    runbook="eviction",
    loses_data=True,
)
def broker_evicts(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """A broker with an allkeys-* policy drops queued tasks without a trace when memory is full."""
    if server.policy.startswith("allkeys-"):
        yield f"carries the broker with maxmemory-policy {server.policy}"


@RULES.rule(
    "redis-broker-not-persistent",
    _brokers,
    fix="Set appendonly yes on a persistent volume; on ElastiCache snapshot_retention_limit ≥ 1",
    runbook="persistence",
    loses_data=True,
)
def broker_not_persistent(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """A broker that keeps nothing on disk loses every queued task when it restarts."""
    if server.container is None:
        if server.resource.get("snapshotRetentionLimit", default=0) < 1:
            yield "carries the broker and takes no snapshots"
        return
    if not server.writes_to_disk:
        yield "carries the broker with neither an append-only file nor snapshots"
    if not ("claim" in server.volume or "persistentVolumeClaim" in server.volume):
        yield f"carries the broker with its data in {next((key for key in server.volume if key != 'name'), 'the container')}"


@RULES.rule(
    "redis-broker-loses-failover",
    _watched,
    fix="Set min-replicas-to-write 1 (or more) beside Sentinel",
    runbook="failover",
    loses_data=True,
)
def broker_loses_failover(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """A primary that takes writes without a replica in sync loses them at a failover."""
    if int(server.settings.get("min-replicas-to-write", "0")) < 1:
        yield "is failed over by Sentinel with min-replicas-to-write 0"


@RULES.rule(
    "redis-sentinel-quorum",
    sentinels,
    fix="Run three Sentinels, on different nodes",
    runbook="failover",
)
def sentinel_quorum(sentinel: Container, graph: Graph, options: Options) -> Iterator[str]:
    """Fewer than three Sentinels cannot agree on a failover when one is gone."""
    if (sentinel.workload.replicas or 1) < 3:
        yield f"runs {sentinel.workload.replicas or 1} Sentinels"


@RULES.rule(
    "redis-cache-policy",
    _cache_servers,
    fix="Set maxmemory-policy volatile-lru (any volatile-*; allkeys-* only where nothing but caches lives)",
    runbook="eviction",
)
def cache_policy(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """Caches under noeviction fill the server until every write is refused."""
    if server.policy == "noeviction":
        yield "holds caches with maxmemory-policy noeviction"


@RULES.rule(
    "redis-cache-ttl",
    readable,
    fix="Give every cache CACHE_DEFAULT_TIMEOUT, and Superset a top-level CACHE_DEFAULT_TIMEOUT for SQL Lab's results",
    runbook="lifetimes",
)
def cache_ttl(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """A cache key without a lifetime is never evicted by a volatile-* policy and fills the server."""
    settings = found.settings()
    for name in CACHES:
        cache = settings.get(name)
        if (
            cache
            and at(cache, "CACHE_TYPE") not in ("NullCache", None)
            and not at(cache, "CACHE_DEFAULT_TIMEOUT", default=0) > 0
        ):
            yield f"{name} has no lifetime"
    if settings.get("RESULTS_BACKEND") is not None and not settings.get("CACHE_DEFAULT_TIMEOUT", 86_400) > 0:
        yield "CACHE_DEFAULT_TIMEOUT is 0, so SQL Lab's results never expire"


@RULES.rule(
    "redis-cache-prefix",
    readable,
    severity="advisory",
    fix="Give each cache its own CACHE_KEY_PREFIX, or its own database",
    runbook="lifetimes",
)
def cache_prefix(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Caches that share a database need prefixes of their own, or they read and clear each other's keys."""
    settings = found.settings()
    seen: dict[object, str] = {}
    for name in CACHES:
        cache = settings.get(name)
        if not cache or at(cache, "CACHE_TYPE") == "NullCache":
            continue
        where = tuple(
            str(at(cache, key, default=""))
            for key in (
                "CACHE_REDIS_HOST",
                "CACHE_REDIS_SENTINEL_MASTER",
                "CACHE_REDIS_DB",
                "CACHE_REDIS_URL",
                "CACHE_KEY_PREFIX",
            )
        )
        if seen.setdefault(where, name) != name:
            yield f"{name} has the database and prefix of {seen[where]}"


@RULES.rule(
    "redis-maxmemory",
    _in_pods,
    fix="Set maxmemory to at most 75 % of the container's memory limit, and set both",
    runbook="memory",
    options={"percent": Option(75, "most of the container's memory limit that maxmemory may be, in percent")},
)
def maxmemory(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """Without room beside maxmemory a rewrite or a full synchronization gets the server killed."""
    limit = server.container.quantity("limits", "memory") if server.container else None
    most = server.maxmemory
    if limit is None:
        yield "has no memory limit"
    if most is None:
        yield "has no maxmemory"
    if limit and most and most * 100 > limit * options["percent"]:
        share = round(most * 100 / limit)
        yield f"has maxmemory {format_memory(most)}, {share} % of its limit {format_memory(limit)}"


@RULES.rule(
    "redis-volume-size",
    _in_pods,
    fix="Make the volume 4.7 times maxmemory with append-only file and snapshots, 3.7 times without snapshots, else 2.2 times",
    runbook="persistence",
)
def volume_size(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """Rewrites and snapshots keep old and new files beside each other: a full volume stops every write."""
    size, most = server.volume_bytes, server.maxmemory
    if size is None or most is None:
        return
    if size < volume_needed(most, append_only=server.append_only, snapshots=server.snapshots):
        yield f"has a volume of {format_memory(size)} for maxmemory {format_memory(most)}"


@RULES.rule(
    "redis-no-password",
    _in_pods,
    fix="Set aclfile or requirepass, from a Secret",
    runbook="access",
)
def no_password(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """Whoever reaches a Redis without a password reads every result and can run code in the workers."""
    if not (server.settings.get("aclfile") or server.settings.get("requirepass")):
        yield "asks its clients for no password"
