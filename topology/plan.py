"""From settings to the topology: every instance, database, queue, pool, limit and size decided, once, purely.

`plan` is the one way in: it refuses a stack with every problem at once (unknown keys, wrong values, broken invariants) and
otherwise returns a topology that holds all invariants. No Pulumi, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topology import invariants
from topology import settings as stack_settings
from topology.connection_budget import connections_needed
from topology.model import (
    BROKER_PURPOSES,
    AnalyticDatabase,
    Backup,
    Beat,
    Caching,
    Celery,
    ConnectionPool,
    ExistingRedis,
    Exporter,
    GuestClaim,
    Images,
    Job,
    Monitoring,
    Objectives,
    OperatorNamespaces,
    Pool,
    Postgres,
    Purpose,
    Quota,
    Rates,
    RedisDatabase,
    RedisInstance,
    RedisRole,
    RedisTls,
    RedisUser,
    Resilience,
    Resources,
    Route,
    Scaling,
    Share,
    Spill,
    Tenant,
    Topology,
    Urgent,
    Web,
)
from topology.problems import StackError
from topology.settings import (
    PoolSettings,
    RedisSettings,
    ResourceSettings,
    RouteSettings,
    Settings,
    TenantSettings,
    WorkerOverrides,
)

DAY = 86_400
#: Redis database numbers. Everything that must not be lost comes first and lives with the broker.
DATABASE_NUMBERS: dict[Purpose, int] = {
    "broker": 0,
    "celery_results": 1,
    "async_events": 2,
    "metadata_cache": 3,
    "data_cache": 4,
    "filter_state": 5,
    "explore_form_data": 6,
    "query_results": 7,
    "rate_limits": 8,
    "coordination": 9,
}
LOOPBACK = "127.0.0.1"
#: Where containers have the authority of a server's certificate: the key `ca.crt` of its Secret, in a folder of the server's.
REDIS_CA_FILE = "/etc/redis-ca/{instance}/ca.crt"
#: Ends the pattern of the lists that kombu makes for a queue's priorities 3, 6 and 9: two control characters and the number.
PRIORITIES = "??[369]"


def plan(stack: str, config: Mapping[str, object]) -> Topology:
    """The topology of `stack` from its `superset-async:` keys; StackError with every problem found."""
    reading = stack_settings.read(config)
    topology = build(stack, reading.settings)
    broken = [
        problem
        for problem in invariants.check(reading.settings, topology)
        if reading.repaired.isdisjoint({problem.key, *problem.also})
    ]
    if reading.problems or broken:
        raise StackError(stack, [*reading.problems, *broken])
    return topology


def build(stack: str, settings: Settings) -> Topology:
    """The topology that `settings` describe, whether or not it holds the invariants (`plan` checks them)."""
    celery = _celery(settings)
    redis = _redis_instances(settings, celery.queues)
    pools = _pools(settings)
    web = _web(settings)
    beat = _beat(settings)
    return Topology(
        stack=stack,
        name=settings.topology,
        platform=settings.platform,
        environment=settings.environment,
        namespace=settings.namespace,
        labels=settings.labels,
        images=Images(**settings.images.model_dump()),
        redis=redis,
        redis_databases=_redis_databases(settings, redis),
        postgres=_postgres(settings, connections_needed(celery, pools, web)),
        web=web,
        celery=celery,
        pools=pools,
        beat=beat,
        exporter=_exporter(settings),
        monitoring=_monitoring(settings),
        caching=_caching(settings),
        resilience=_resilience(settings),
        tenants=tuple(_tenant(settings, tenant_id, tenant) for tenant_id, tenant in settings.tenants.items()),
        urgent=Urgent(**settings.urgent.model_dump()) if settings.urgent else None,
        rates=Rates(**settings.rates.model_dump()),
        statement_timeout_seconds=settings.statement_timeout,
        row_limit=settings.row_limit,
        database_cidrs=settings.network.database_cidrs,
        operator_namespaces=OperatorNamespaces(**settings.network.operator_namespaces.model_dump()),
        databases=_databases(settings),
        admin_username=settings.admin_username,
    )


def _redis_instances(settings: Settings, queues: Sequence[str]) -> tuple[RedisInstance, ...]:
    tier = settings.redis
    cache = _cache_user()
    if tier.cache is None:
        return (_redis_instance(settings, tier.broker, "redis", 0, _broker_user(_broker_keys(queues)), cache),)
    return (
        # All keys there are the broker's: a new queue changes nothing for the server.
        _redis_instance(settings, tier.broker, "redis-broker", 0, _broker_user(("*",))),
        _redis_instance(settings, tier.cache, "redis-cache", 1, cache),
    )


def _broker_keys(queues: Sequence[str]) -> tuple[str, ...]:
    """Patterns of every key of Celery's and kombu's, and of Superset's event streams."""
    return (
        # A queue is a list of its name, and one more for each other priority.
        *(key for queue in queues for key in (queue, f"{queue}{PRIORITIES}")),
        "_kombu.binding.*",
        "unacked*",
        "*.celery.pidbox",
        f"*.celery.pidbox{PRIORITIES}",
        "celeryev*",
        "celery-task-meta-*",
        "async-events-*",
        f"{_prefix('coordination')}*",
    )


def _broker_user(keys: tuple[str, ...]) -> RedisUser:
    """Whom messages, Celery's results and async events belong to."""
    fanout = f"/{DATABASE_NUMBERS['broker']}."
    return RedisUser(
        role="broker",
        username="broker",
        password_env="REDIS_BROKER_PASSWORD",
        keys=keys,
        channels=(f"{fanout}celery*", "celery-task-meta-*"),
        # Remote control, and what a monitor listens to.
        subscriptions=tuple(f"{fanout}{name}" for name in ("celery.pidbox", "celeryev/*", "celeryev/worker.*")),
    )


def _cache_user() -> RedisUser:
    return RedisUser(
        role="cache",
        username="cache",
        password_env="REDIS_CACHE_PASSWORD",
        keys=tuple(f"{_prefix(purpose)}*" for purpose in DATABASE_NUMBERS if purpose not in BROKER_PURPOSES),
        channels=(),
        subscriptions=(),
    )


def _prefix(purpose: Purpose) -> str:
    # Celery and Superset's event streams take no prefix from here.
    return "" if purpose in BROKER_PURPOSES - {"coordination"} else f"{purpose}:"


def _redis_instance(settings: Settings, redis: RedisSettings, name: str, index: int, *users: RedisUser) -> RedisInstance:
    local = settings.platform == "local"
    roles = {user.role for user in users}
    existing = redis.existing
    if existing:
        users = tuple(user.model_copy(update={"username": existing.username}) for user in users)
    return RedisInstance(
        name=name,
        host=existing.host if existing else LOOPBACK if local else name,
        port=existing.port if existing else settings.local.redis_port + index if local else 6379,
        tls=_redis_tls(settings, redis, name),
        existing=ExistingRedis(cidrs=existing.cidrs, password_secret_name=existing.password_secret) if existing else None,
        users=users,
        carries_broker="broker" in roles,
        carries_caches="cache" in roles,
        maxmemory_bytes=redis.maxmemory,
        maxmemory_policy=redis.maxmemory_policy,
        persistence=redis.persistence,
        # One machine has nothing to fail over to.
        replicas=0 if local else redis.replicas,
        sentinel=redis.sentinel and not local,
        volume_bytes=redis.volume_size,
        resources=_resources(redis.resources),
    )


def _redis_tls(settings: Settings, redis: RedisSettings, name: str) -> RedisTls | None:
    if redis.existing:
        used, secret = redis.existing.tls, redis.existing.ca_secret
    else:
        # On the loopback address there is nobody to listen.
        secret = None if settings.platform == "local" else settings.redis.tls_secret
        used = secret is not None
    return RedisTls(secret_name=secret, ca_file=REDIS_CA_FILE.format(instance=name) if secret else None) if used else None


def _redis_databases(settings: Settings, redis: tuple[RedisInstance, ...]) -> tuple[RedisDatabase, ...]:
    lifetimes: dict[Purpose, int | None] = {
        "broker": None,
        "celery_results": settings.celery.result_expires,
        "async_events": None,
        "coordination": None,
        "metadata_cache": DAY,
        "data_cache": settings.caching.chart_data_ttl,
        "filter_state": 90 * DAY,
        "explore_form_data": 7 * DAY,
        "query_results": settings.caching.query_results_ttl,
        "rate_limits": 60,
    }
    if settings.celery.result_backend != "redis":
        del lifetimes["celery_results"]
    instances = {user.role: instance.name for instance in redis for user in instance.users}
    roles: dict[Purpose, RedisRole] = {
        purpose: "broker" if purpose in BROKER_PURPOSES else "cache" for purpose in DATABASE_NUMBERS
    }
    return tuple(
        RedisDatabase(
            purpose=purpose,
            instance=instances[roles[purpose]],
            role=roles[purpose],
            number=number,
            prefix=_prefix(purpose),
            default_ttl_seconds=lifetimes[purpose],
        )
        for purpose, number in DATABASE_NUMBERS.items()
        if purpose in lifetimes
    )


def _postgres(settings: Settings, needed: int) -> Postgres:
    postgres = settings.postgres
    local = settings.platform == "local"
    # The limit changes only with a restart of the server: with tenants there is room for the next ones.
    step = 500 if settings.tenants else 10
    derived = max(100, -(-(needed + postgres.reserved_connections) // step) * step)
    return Postgres(
        kind=postgres.kind,
        host=LOOPBACK if local else postgres.host or "postgres",
        port=settings.local.postgres_port if local else postgres.port,
        database=postgres.database,
        user=postgres.user,
        password_env="POSTGRES_PASSWORD",
        max_connections=postgres.max_connections or derived,
        reserved_connections=postgres.reserved_connections,
        instances=1 if local else postgres.instances,
        backup=Backup(cron=postgres.backup.cron, keep=postgres.backup.keep, volume_bytes=postgres.backup.volume_size)
        if postgres.backup and not local
        else None,
        volume_bytes=postgres.volume_size,
        resources=_resources(postgres.resources),
    )


def _web(settings: Settings) -> Web:
    web = settings.web
    local = settings.platform == "local"
    return Web(
        host=LOOPBACK if local else "web",
        port=settings.local.web_port if local else 8088,
        min_replicas=1 if local else web.min_replicas,
        max_replicas=1 if local else web.max_replicas,
        processes=web.processes,
        threads=web.threads,
        request_timeout_seconds=web.request_timeout,
        # A browser does not send a secure cookie over the plain HTTP of the loopback address.
        secure_cookies=web.secure_cookies and not local,
        connections=_connections(web.connections),
        cpu_target_percent=web.cpu_target if web.max_replicas > web.min_replicas and not local else None,
        route=_route(web.route) if web.route and not local else None,
        resources=_resources(web.resources),
    )


def _route(route: RouteSettings) -> Route:
    return Route(
        kind=route.kind,
        host=route.host,
        parent=route.parent,
        tls_secret_name=route.tls_secret,
        from_namespaces=route.from_namespaces,
    )


def _celery(settings: Settings) -> Celery:
    celery = settings.celery
    return Celery(
        result_backend=celery.result_backend,
        default_queue=celery.default_queue,
        queues=(*celery.queues, *(tenant for tenant in settings.tenants if tenant not in celery.queues)),
        acks_late=celery.acks_late,
        soft_time_limit_seconds=celery.soft_time_limit,
        time_limit_seconds=celery.time_limit,
        visibility_timeout_seconds=celery.visibility_timeout,
        result_expires_seconds=celery.result_expires,
        compression=celery.compression,
        connections=_connections(celery.connections),
    )


def _tenant(settings: Settings, tenant_id: str, tenant: TenantSettings) -> Tenant:
    celery = settings.celery
    return Tenant(
        id=tenant_id,
        queue=tenant_id,
        pool=tenant_id if tenant.pool == "dedicated" else _shared_pool(settings),
        users=tenant.users,
        roles=tenant.roles,
        databases=tenant.databases,
        guests=tuple(GuestClaim(claim=guest.claim, value=guest.value) for guest in tenant.guests),
        soft_time_limit_seconds=tenant.soft_time_limit or celery.soft_time_limit,
        time_limit_seconds=tenant.time_limit or celery.time_limit,
        statement_timeout_seconds=tenant.statement_timeout or settings.statement_timeout,
        result_ttl_seconds=tenant.result_ttl,
        monthly_budget=tenant.monthly_budget,
    )


def _shared_pool(settings: Settings) -> str:
    """The pool that listens to the default queue, and so to those of the tenants without workers of their own."""
    default = settings.celery.default_queue
    return next((name for name, pool in settings.pools.items() if default in (pool.queues or (name,))), default)


def _pools(settings: Settings) -> tuple[Pool, ...]:
    of_tenants = {
        tenant_id: WorkerOverrides(
            concurrency=tenant.concurrency, min_workers=tenant.min_workers, max_workers=tenant.max_workers
        )
        for tenant_id, tenant in settings.tenants.items()
        if tenant.pool == "dedicated"
    }
    return tuple(_pool(settings, name, overrides) for name, overrides in (of_tenants | settings.pools).items())


def _pool(settings: Settings, name: str, overrides: WorkerOverrides) -> Pool:
    tenant = settings.tenants.get(name) if name not in settings.pools else None
    shared = tuple(tenant_id for tenant_id, other in settings.tenants.items() if other.pool == "shared")
    queues = (*(overrides.queues or (name,)), *(shared if name == _shared_pool(settings) else ()))
    base = settings.workers
    concurrency = overrides.concurrency or base.concurrency
    scaling = overrides.scaling or base.scaling
    return Pool(
        name=name,
        tenant=name if tenant else None,
        priority=tenant.priority if tenant else "normal",
        quota=Quota(cpu_millis=tenant.quota.cpu, memory_bytes=tenant.quota.memory) if tenant and tenant.quota else None,
        queues=queues,
        shares=tuple(_share(settings, queue, concurrency) for queue in queues) if len(queues) > 1 else (),
        concurrency=concurrency,
        min_workers=overrides.min_workers or base.min_workers,
        max_workers=overrides.max_workers or base.max_workers,
        prefetch_multiplier=overrides.prefetch_multiplier or base.prefetch_multiplier,
        max_tasks_per_child=overrides.max_tasks_per_child or base.max_tasks_per_child,
        max_memory_per_child_bytes=overrides.max_memory_per_child or base.max_memory_per_child,
        grace_period_seconds=overrides.grace_period or base.grace_period,
        scaling=Scaling(
            kind=scaling.kind,
            cpu_target_percent=scaling.cpu_target,
            queued_per_worker=scaling.queued_per_worker,
            scale_in_window_seconds=scaling.scale_in_window,
        )
        if scaling and settings.platform != "local"
        else None,
        resources=_resources(overrides.resources or base.resources),
    )


def _share(settings: Settings, queue: str, concurrency: int) -> Share:
    """One child always stays free for the others, unless the tenant's own bound is lower still."""
    tenant = settings.tenants.get(queue)
    most = max(1, concurrency - 1)
    return Share(
        queue=queue,
        in_flight=min(most, tenant.in_flight or most) if tenant else most,
        priority=tenant.priority if tenant else "normal",
    )


def _caching(settings: Settings) -> Caching:
    caching = settings.caching
    return Caching(
        chart_data_ttl_seconds=caching.chart_data_ttl,
        query_results_ttl_seconds=caching.query_results_ttl,
        jitter_percent=caching.jitter,
        early_refresh=caching.early_refresh,
        stale_seconds=caching.stale,
        single_flight=caching.single_flight,
        compression=caching.compression,
        compress_above_bytes=caching.compress_above,
        max_result_bytes=caching.max_result,
        spill=Spill(above_bytes=caching.spill.above, folder=caching.spill.folder, claim=caching.spill.claim)
        if caching.spill
        else None,
    )


def _resilience(settings: Settings) -> Resilience:
    resilience = settings.resilience
    return Resilience(
        max_queued=resilience.max_queued,
        max_in_flight_per_user=resilience.max_in_flight_per_user,
        max_retries=resilience.max_retries,
        retry_backoff_seconds=resilience.retry_backoff,
        final_state_seconds=resilience.final_state,
    )


def _beat(settings: Settings) -> Beat:
    keep = settings.maintenance
    jobs: list[Job] = []
    if settings.celery.result_backend == "postgresql":
        jobs.append(Job(name="celery-results", task="celery.backend_cleanup", cron="7 * * * *", kwargs={}))
    # Of a tenant that was removed.
    jobs.append(Job(name="retired-queues", task="superset_async.empty_retired_queues", cron="* * * * *", kwargs={}))
    for name, task, days in (
        ("queries", "prune_query", keep.query_retention_days),
        ("executions", "superset_async.prune_executions", keep.query_retention_days or 90),
        ("logs", "prune_logs", keep.log_retention_days),
    ):
        if days is not None:
            jobs.append(Job(name=name, task=task, cron=keep.cron, kwargs={"retention_period_days": days}))
    return Beat(jobs=tuple(jobs), resources=_resources(settings.beat_resources))


def _exporter(settings: Settings) -> Exporter:
    metrics = settings.metrics
    local = settings.platform == "local"
    return Exporter(
        host=LOOPBACK if local else "exporter",
        port=settings.local.exporter_port if local else 9808,
        from_namespaces=metrics.from_namespaces,
        service_monitor=metrics.service_monitor,
        resources=_resources(metrics.resources),
    )


def _monitoring(settings: Settings) -> Monitoring:
    metrics = settings.metrics
    return Monitoring(
        rules=metrics.rules,
        runbooks=metrics.runbooks.rstrip("/"),
        objectives=Objectives(
            wait_seconds=metrics.objectives.wait,
            waits_met=metrics.objectives.waits_met,
            ends_well=metrics.objectives.ends_well,
        ),
        prometheus_port=settings.local.prometheus_port,
        alertmanager_port=settings.local.alertmanager_port,
    )


def _databases(settings: Settings) -> tuple[AnalyticDatabase, ...]:
    return tuple(
        AnalyticDatabase(
            name=name,
            uri=database.uri,
            uri_env=None if database.uri else f"DATABASE_URI_{name.upper().replace('-', '_')}",
            statement_timeout_seconds=database.statement_timeout or settings.statement_timeout,
            allow_dml=database.allow_dml,
            sample=database.sample,
        )
        for name, database in settings.databases.items()
    )


def _resources(resources: ResourceSettings) -> Resources:
    return Resources(
        cpu_request_millis=resources.cpu_request,
        cpu_limit_millis=resources.cpu_limit,
        memory_request_bytes=resources.memory_request,
        memory_limit_bytes=resources.memory_limit,
    )


def _connections(pool: PoolSettings) -> ConnectionPool:
    return ConnectionPool(size=pool.size, max_overflow=pool.max_overflow, recycle_seconds=pool.recycle)
