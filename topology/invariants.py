"""The rules that hold in every topology: each a function from settings and topology to the problems it finds.

They speak of the keys of the stack file, since that is what a person can change. The same rules stand once more as policies,
on what is really deployed. Sharing of cache databases, prefixes and secrets between web and workers (the ninth invariant of
the design) needs no rule: both read one topology.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from topology import tenant_invariants
from topology.connection_budget import connections_needed
from topology.model import BROKER_PURPOSES, Topology
from topology.platforms import platform_of
from topology.problems import Problem, did_you_mean
from topology.quantities import format_memory
from topology.rule import Rule
from topology.settings import ResourceSettings, Settings
from topology.tenant_invariants import GRACE_MARGIN_SECONDS

#: Resident memory of a Superset worker's child that has run nothing yet: 214 to 233 MB measured on Superset 6.1.
CHILD_AT_REST_BYTES = 233_000_000


def check(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Every invariant that `topology`, built from `settings`, breaks."""
    for rule in (*RULES, *platform_of(settings.platform).rules):
        yield from rule(settings, topology)


def queues_have_listeners(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A queue that a task can be routed to has a pool listening; a pool listens only to declared queues."""
    declared = topology.celery.queues
    heard = {queue for pool in topology.pools for queue in pool.queues}
    for queue in declared:
        if queue not in heard:
            yield Problem(
                "celery.queues",
                queue,
                "is a queue that no worker pool listens to: its tasks would stay pending for ever",
                f"Add it to a pool's queues (pools.<name>.queues), or add a pool named {queue!r}",
                also=("pools",),
            )
    for pool in topology.pools:
        for queue in pool.queues:
            if queue not in declared:
                yield Problem(
                    f"pools.{pool.name}.queues",
                    queue,
                    "is not declared in celery.queues, so nothing is ever sent there",
                    f"Declare it in celery.queues. {did_you_mean(queue, declared)}",
                    also=("celery.queues",),
                )
    if topology.celery.default_queue not in declared:
        yield Problem(
            "celery.default_queue",
            topology.celery.default_queue,
            "is not declared in celery.queues",
            f"Declare it in celery.queues. {did_you_mean(topology.celery.default_queue, declared)}",
            also=("celery.queues",),
        )


def names_are_unique(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """No queue is declared twice, and a tenant shares its name with no queue or pool."""
    for queue, count in Counter(settings.celery.queues).items():
        if count > 1:
            yield Problem("celery.queues", queue, f"is declared {count} times", "Declare it once")
    for tenant in settings.tenants:
        for key, taken in (("celery.queues", settings.celery.queues), ("pools", tuple(settings.pools))):
            if tenant in taken:
                yield Problem(
                    f"tenants.{tenant}",
                    tenant,
                    f"is a name that {key} has already; a tenant gets a queue and a pool of its own name",
                    f"Rename the tenant, or take {tenant!r} out of {key}",
                    also=(key,),
                )


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


def limits_are_ordered(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """statement_timeout < soft limit < hard limit < visibility timeout, and grace period ≥ soft limit + 30 s."""
    celery = settings.celery
    if celery.soft_time_limit >= celery.time_limit:
        yield Problem(
            "celery.soft_time_limit",
            str(celery.soft_time_limit),
            f"must be below celery.time_limit ({celery.time_limit}): the task is killed before it is told to stop",
            "Lower it, or raise celery.time_limit",
            also=("celery.time_limit",),
        )
    if celery.time_limit >= celery.visibility_timeout:
        yield Problem(
            "celery.visibility_timeout",
            str(celery.visibility_timeout),
            f"must be above celery.time_limit ({celery.time_limit}): a task still running would be delivered again",
            "Raise it, or lower celery.time_limit",
            also=("celery.time_limit",),
        )
    timeouts = {"statement_timeout": settings.statement_timeout} | {
        f"databases.{name}.statement_timeout": database.statement_timeout
        for name, database in settings.databases.items()
        if database.statement_timeout is not None
    }
    for key, timeout in timeouts.items():
        if timeout >= celery.soft_time_limit:
            yield Problem(
                key,
                str(timeout),
                f"must be below celery.soft_time_limit ({celery.soft_time_limit}): only the database can end a statement",
                "Lower it, or raise celery.soft_time_limit",
                also=("celery.soft_time_limit", "statement_timeout"),
            )
    for pool in topology.pools:
        least = celery.soft_time_limit + GRACE_MARGIN_SECONDS
        if pool.grace_period_seconds < least:
            key = _pool_key(settings, pool.name, "grace_period")
            yield Problem(
                key,
                str(pool.grace_period_seconds),
                f"must be at least celery.soft_time_limit + {GRACE_MARGIN_SECONDS} = {least}: "
                "a stopping worker would be killed in mid-query",
                "Raise it",
                also=("celery.soft_time_limit", "workers.grace_period", f"pools.{pool.name}"),
            )


def connections_fit(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Everything that can connect to PostgreSQL at once fits into max_connections less the reserve."""
    needed = connections_needed(topology.celery, topology.pools, topology.web)
    postgres = topology.postgres
    if needed > postgres.max_connections - postgres.reserved_connections:
        yield Problem(
            "postgres.max_connections",
            str(postgres.max_connections),
            f"is below {needed + postgres.reserved_connections}: workers and web can open {needed} connections, "
            f"and {postgres.reserved_connections} are reserved",
            "Leave it out to have it derived, or lower max_workers, concurrency or the connection pools",
            also=("postgres.reserved_connections", "web", "workers", "pools", "celery.connections"),
        )


def redis_memory_fits(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """maxmemory ≤ 75 % of the container's limit (the AOF rewrite forks); volume ≥ 2 × maxmemory."""
    for key, redis in settings.redis.servers().items():
        if redis.existing:
            continue
        most = redis.resources.memory_limit * 3 // 4
        if redis.maxmemory > most:
            yield Problem(
                f"{key}.maxmemory",
                format_memory(redis.maxmemory),
                f"must be at most 75 % of the memory limit, {format_memory(most)}: saving to disk forks the server",
                f"Lower it, or raise {key}.resources.memory_limit",
                also=(f"{key}.resources.memory_limit",),
            )
        if redis.volume_size < 2 * redis.maxmemory:
            yield Problem(
                f"{key}.volume_size",
                format_memory(redis.volume_size),
                f"must be at least 2 × maxmemory, {format_memory(2 * redis.maxmemory)}: a rewrite keeps two copies",
                "Raise it",
                also=(f"{key}.maxmemory",),
            )
        if redis.sentinel and redis.replicas < 2:
            yield Problem(
                f"{key}.sentinel",
                "true",
                f"needs at least 2 replicas to agree on a failover, there are {redis.replicas}",
                f"Set {key}.replicas: 2",
                also=(f"{key}.replicas",),
            )


def requests_and_ranges_hold(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Requests are positive (a CPU scaler divides by them) and within limits; no minimum is above its maximum."""
    sections: list[tuple[str, ResourceSettings]] = [
        ("web", settings.web.resources),
        ("workers", settings.workers.resources),
        ("postgres", settings.postgres.resources),
        *((key, redis.resources) for key, redis in settings.redis.servers().items() if not redis.existing),
        *((f"pools.{name}", pool.resources) for name, pool in settings.pools.items() if pool.resources),
    ]
    for key, resources in (*sections, ("beat", settings.beat_resources)):
        where = "beat_resources" if key == "beat" else f"{key}.resources"
        for kind, request, limit in (
            ("cpu", resources.cpu_request, resources.cpu_limit),
            ("memory", resources.memory_request, resources.memory_limit),
        ):
            if not 0 < request <= limit:
                yield Problem(
                    f"{where}.{kind}_request",
                    str(request),
                    f"must be above 0 and at most the limit ({limit})",
                    f"Change it, or {where}.{kind}_limit",
                    also=(f"{where}.{kind}_limit",),
                )
    route = settings.web.route
    if route is not None:
        if (route.kind == "gateway") != ("/" in route.parent):
            yield Problem(
                "web.route.parent",
                route.parent,
                f"must be {'namespace/name of a Gateway' if route.kind == 'gateway' else 'the name of an ingress class'}",
                "Change it, or web.route.kind",
                also=("web.route.kind",),
            )
        if route.kind == "ingress" and route.tls_secret is None:
            yield Problem(
                "web.route.tls_secret",
                "null",
                "must name the certificate's Secret: users log in over this route",
                "Name a Secret of type kubernetes.io/tls, such as cert-manager makes",
                also=("web.route.kind",),
            )
    if settings.web.min_replicas > settings.web.max_replicas:
        yield Problem(
            "web.min_replicas",
            str(settings.web.min_replicas),
            f"must be at most web.max_replicas ({settings.web.max_replicas})",
            "Lower it, or raise web.max_replicas",
            also=("web.max_replicas",),
        )
    for pool in topology.pools:
        if pool.min_workers > pool.max_workers:
            key = _pool_key(settings, pool.name, "min_workers")
            yield Problem(
                key,
                str(pool.min_workers),
                f"must be at most max_workers of the same pool ({pool.max_workers})",
                "Lower it, or raise max_workers",
                also=(_pool_key(settings, pool.name, "max_workers"),),
            )


def children_fit(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A child may grow beyond its size at rest before it is replaced, and all children of a worker fit into its limit."""
    for pool in topology.pools:
        limit = pool.max_memory_per_child_bytes
        if limit is None:
            continue
        key = _pool_key(settings, pool.name, "max_memory_per_child")
        if limit <= CHILD_AT_REST_BYTES:
            yield Problem(
                key,
                format_memory(limit),
                f"must be above what a child needs at rest ({CHILD_AT_REST_BYTES // 10**6} MB): "
                "it would be replaced after every task",
                "Raise it; 433M leaves 200 MB for a task",
            )
        elif limit * pool.concurrency > pool.resources.memory_limit_bytes:
            yield Problem(
                key,
                format_memory(limit),
                f"times concurrency {pool.concurrency} is above the worker's memory limit "
                f"({format_memory(pool.resources.memory_limit_bytes)}): the worker is killed before a child is replaced",
                "Lower it or the concurrency, or raise the pool's memory limit",
                also=("workers.concurrency", "workers.resources.memory_limit", f"pools.{pool.name}"),
            )


def beat_runs_where_needed(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Celery's results on PostgreSQL are cleaned by a beat job (true by construction; kept so that it stays true)."""
    tasks = {job.task for job in topology.beat.jobs}
    if topology.celery.result_backend == "postgresql" and "celery.backend_cleanup" not in tasks:
        yield Problem("celery.result_backend", "postgresql", "needs the cleanup job of a beat", "Use redis")


def postgres_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A server that runs elsewhere says where and how large; one that this project runs does not."""
    postgres = settings.postgres
    if postgres.kind == "existing":
        if postgres.host is None:
            yield Problem("postgres.host", "null", "must name the existing server", "Give its host name")
        if postgres.max_connections is None:
            yield Problem(
                "postgres.max_connections",
                "null",
                "cannot be derived for an existing server",
                "Give the server's own limit (SHOW max_connections)",
            )
        if postgres.backup is not None:
            yield Problem("postgres.backup", "…", "is not for an existing server, which has its own", "Set it to null")
    elif postgres.host is not None:
        yield Problem("postgres.host", postgres.host, f"is not for kind {postgres.kind}", "Remove it, or set kind: existing")
    if postgres.instances > 1 and postgres.kind != "cloudnativepg":
        yield Problem(
            "postgres.instances",
            str(postgres.instances),
            f"needs kind cloudnativepg: a {postgres.kind} is one server",
            "Set it to 1, or postgres.kind: cloudnativepg",
            also=("postgres.kind",),
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
        if existing.cidrs == ():
            yield Problem(
                f"{where}.cidrs", "[]", "lets no pod reach the server", "Name its networks, or set it to null: anywhere"
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
    if settings.redis.tls_secret and all(redis.existing for _, redis in settings.redis.servers().items()):
        yield Problem(
            "redis.tls_secret",
            settings.redis.tls_secret,
            "has no use: this project runs none of the servers",
            "Set it to null; an existing server's authority is existing.ca_secret",
            also=("redis.broker.existing", "redis.cache"),
        )


def sample_has_no_uri(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The sample database is generated, so that nobody gives its URI."""
    for name, database in settings.databases.items():
        if database.sample and database.uri is not None:
            yield Problem(f"databases.{name}.uri", database.uri, "is not for the sample database", "Remove it")


def spilled_results_are_kept(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A result that is to be spilled must be one that is kept."""
    spill = settings.caching.spill
    if spill is not None and spill.above >= settings.caching.max_result:
        yield Problem(
            "caching.spill.above",
            format_memory(spill.above),
            f"must be less than caching.max_result ({format_memory(settings.caching.max_result)}): nothing would be spilled",
            "Raise caching.max_result or lower caching.spill.above",
            also=("caching.max_result",),
        )


def _pool_key(settings: Settings, pool: str, field: str) -> str:
    """The key that decides `field` of a pool: its own, its tenant's, or the one of all workers."""
    if pool in settings.pools and getattr(settings.pools[pool], field) is not None:
        return f"pools.{pool}.{field}"
    if pool in settings.tenants and getattr(settings.tenants[pool], field, None) is not None:
        return f"tenants.{pool}.{field}"
    return f"workers.{field}"


RULES: tuple[Rule, ...] = (
    queues_have_listeners,
    names_are_unique,
    broker_never_evicts,
    limits_are_ordered,
    connections_fit,
    redis_memory_fits,
    requests_and_ranges_hold,
    children_fit,
    beat_runs_where_needed,
    postgres_is_complete,
    existing_redis_is_complete,
    sample_has_no_uri,
    *tenant_invariants.RULES,
    spilled_results_are_kept,
)
