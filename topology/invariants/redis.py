"""Rules about the Redis servers: a broker that loses nothing, memory that suffices, servers that someone else runs."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import BROKER_PURPOSES, Topology
from topology.problems import Problem
from topology.quantities import MIB, format_memory
from topology.settings import Settings
from topology.valkey_conf import volume_needed


def broker_never_evicts(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A Redis that carries a broker has no allkeys-* policy; where it shares with caches, every cache key has a TTL."""
    broker = settings.redis.broker
    # Of an existing server only itself can say it: `runtime.start.init` asks.
    ours = broker.existing is None
    if ours and broker.maxmemory_policy.startswith("allkeys-"):
        yield Problem(
            "redis.broker.maxmemory_policy",
            broker.maxmemory_policy,
            "evicts queued tasks without a trace when memory is full",
            "Use noeviction, or volatile-lru where the caches share the server",
        )
    if ours and settings.redis.cache is None and broker.maxmemory_policy == "noeviction":
        yield Problem(
            "redis.broker.maxmemory_policy",
            "noeviction",
            "lets cached results fill the server that the caches share until every submission is refused",
            "Use volatile-lru, or give the caches a server of their own (redis.cache)",
            also=("redis.cache",),
        )
    if ours and broker.persistence == "none":
        yield Problem("redis.broker.persistence", "none", "loses every queued task when Redis restarts", "Use aof (or rdb)")
    for database in topology.redis_databases:
        if database.purpose not in BROKER_PURPOSES and database.default_ttl_seconds is None:
            yield Problem(f"caching.{database.purpose}", "no TTL", "is a cache whose keys never expire", "Give it a TTL")


def redis_memory_fits(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """maxmemory ≤ 75 % of the container's limit (the AOF rewrite forks); volume ≥ the most that is ever on it."""
    for key, redis in settings.redis.servers().items():
        if redis.existing:
            continue
        most = redis.resources.memory_limit_bytes * 3 // 4
        if redis.maxmemory_bytes > most:
            yield Problem(
                f"{key}.maxmemory",
                format_memory(redis.maxmemory_bytes),
                f"must be at most 75 % of the memory limit, {format_memory(most)}: saving to disk forks the server",
                f"Lower it, or raise {key}.resources.memory_limit",
                also=(f"{key}.resources.memory_limit",),
            )
        persistence = redis.persistence
        needed = volume_needed(redis.maxmemory_bytes, append_only=persistence == "aof", snapshots=persistence != "none")
        if redis.volume_bytes < needed:
            why = "rewrites and snapshots keep" if persistence == "aof" else "snapshots keep"
            yield Problem(
                f"{key}.volume_size",
                format_memory(redis.volume_bytes),
                f"must be at least {needed / redis.maxmemory_bytes:.1f} × maxmemory with persistence {persistence}, "
                f"{-(-needed // MIB)}Mi: {why} old files until the new ones are complete",
                f"Raise it, or lower {key}.maxmemory",
                also=(f"{key}.maxmemory", f"{key}.persistence"),
            )
        if redis.sentinel and redis.replicas < 2:
            yield Problem(
                f"{key}.sentinel",
                "true",
                f"needs at least 2 replicas to agree on a failover, there are {redis.replicas}",
                f"Set {key}.replicas: 2",
                also=(f"{key}.replicas",),
            )


def existing_redis_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A server that runs elsewhere is not also asked of this project, and two that are told apart are two."""
    for key, redis in settings.redis.servers().items():
        existing = redis.existing
        if existing is None:
            continue
        where = f"{key}.existing"
        if redis.replicas:
            yield Problem(
                f"{key}.replicas",
                str(redis.replicas),
                "is not for an existing server, which has its own",
                "Set it to 0",
                also=(where,),
            )
        if redis.sentinel:
            yield Problem(
                f"{key}.sentinel",
                "true",
                "is not for an existing server: it is reached at one host, whichever of its servers is the primary",
                "Set it to false, and give a host that follows the primary",
                also=(where,),
            )
        if existing.ca_secret and not existing.tls:
            yield Problem(
                f"{where}.ca_secret",
                existing.ca_secret,
                "has no use without TLS",
                "Set tls: true beside it, or remove it",
                also=(f"{where}.tls",),
            )
    broker, cache = settings.redis.broker.existing, settings.redis.cache and settings.redis.cache.existing
    if broker and cache and (broker.host, broker.port) == (cache.host, cache.port):
        yield Problem(
            "redis.cache.existing.host",
            f"{cache.host}:{cache.port}",
            "is the broker's server, with its maxmemory-policy: cached results would fill it until tasks are refused, or "
            "evict them",
            "Give the caches a server of their own, or set redis.cache: null where they are meant to share",
            also=("redis.broker.existing", "redis.cache.existing"),
        )
    if settings.redis.tls and all(redis.existing for _, redis in settings.redis.servers().items()):
        yield Problem(
            "redis.tls",
            settings.redis.tls.kind,
            "has no use: this project runs none of the servers",
            "Set it to null; an existing server's authority is existing.ca_secret",
            also=("redis.broker.existing", "redis.cache"),
        )


def tenants_have_a_broker_apart(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """With tenants the broker has a server of its own: queues come and go there without a change to the server."""
    if settings.tenants and settings.redis.cache is None:
        yield Problem(
            "redis.cache",
            "null",
            "must be a server of its own where there are tenants: on a shared server the broker's user is granted each queue "
            "by name, so a new tenant restarts it, and the queries that wait when one is removed are out of reach",
            "Use topology: multi-tenant (or enterprise), or give redis.cache",
            also=("tenants", "topology"),
        )
