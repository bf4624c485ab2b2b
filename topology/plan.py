"""From settings to the topology: every instance, database, queue, pool, limit and size decided, once, purely.

`plan` is the one way in: it refuses a stack with every problem at once (unknown keys, wrong values, broken invariants) and
otherwise returns a topology that holds all invariants. No Pulumi, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topology import egress, invariants, redis_layout, server_tls
from topology import settings as stack_settings
from topology.connection_budget import connections_needed
from topology.model import (
    AnalyticDatabase,
    Beat,
    Exporter,
    Monitoring,
    Pool,
    Postgres,
    ScheduledJob,
    ServerTls,
    Share,
    Tenant,
    Topology,
    Web,
)
from topology.platforms import Platform, platform_of
from topology.problems import StackError
from topology.settings import Settings, TenantSettings
from topology.settings.databases import DatabaseOptions
from topology.settings.network import RESOLVERS, MetricsSettings, NetworkSettings, Resolver
from topology.settings.postgres import PostgresServer
from topology.settings.section import inherited
from topology.settings.tenants import TenantTerms
from topology.settings.web import WebServer
from topology.settings.workers import Celery, WorkerOverrides, WorkerSettings


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
    platform = platform_of(settings.platform)
    settings = platform.fit(settings)
    celery = _celery(settings)
    redis = redis_layout.redis_instances(platform, settings, celery.queues)
    pools = _pools(platform, settings)
    web = _web(platform, settings)
    beat = _beat(settings)
    topology = Topology(
        stack=stack,
        name=settings.topology,
        platform=settings.platform,
        environment=settings.environment,
        namespace=settings.namespace,
        existing_namespace=settings.existing_namespace,
        labels=settings.labels,
        storage_class=settings.storage_class,
        images=settings.images,
        redis=redis,
        redis_databases=redis_layout.redis_databases(settings, redis),
        postgres=_postgres(platform, settings, connections_needed(celery, pools, web)),
        superset=settings.superset,
        web=web,
        celery=celery,
        pools=pools,
        beat=beat,
        exporter=_exporter(platform, settings),
        monitoring=Monitoring(
            prometheus_port=settings.local.prometheus_port, alertmanager_port=settings.local.alertmanager_port
        ),
        caching=settings.caching,
        resilience=settings.resilience,
        tenants=tuple(_tenant(settings, tenant_id, tenant) for tenant_id, tenant in settings.tenants.items()),
        embedding=settings.superset.embedding is not None or any(tenant.guests for tenant in settings.tenants.values()),
        urgent=settings.urgent,
        rates=settings.rates,
        statement_timeout_seconds=settings.statement_timeout,
        row_limit=settings.row_limit,
        resolvers=_resolvers(settings.network),
        egress=egress.peers(settings),
        tracing=settings.tracing,
        api_server_cidrs=settings.network.api_server_cidrs,
        operator_namespaces=settings.network.operator_namespaces,
        databases=_databases(settings),
        admin_username=settings.admin_username,
        aws=None,
    )
    return platform.complete(settings, topology)


def _postgres(platform: Platform, settings: Settings, needed: int) -> Postgres:
    postgres = settings.postgres
    address = platform.postgres_address(settings)
    # The limit changes only with a restart of the server: it doubles, from where there is room for the next tenants.
    derived = 500 if settings.tenants else 100
    while derived < needed + postgres.reserved_connections:
        derived *= 2
    return Postgres(
        **inherited(postgres, PostgresServer),
        host=address.host,
        port=address.port,
        password_env="POSTGRES_PASSWORD",
        max_connections=postgres.max_connections or derived,
        tls=_postgres_tls(platform, settings, address.host),
    )


def _postgres_tls(platform: Platform, settings: Settings, host: str) -> ServerTls | None:
    postgres = settings.postgres
    match postgres.kind:
        case "rds":
            return ServerTls(secret_name=None, ca_file=platform.postgres_ca_file)
        case "existing":
            return server_tls.of_others("postgres", postgres.ca_secret) if postgres.ca_secret else None
        case "cloudnativepg" if postgres.tls and postgres.tls.kind == "generated":
            # That operator has an authority for each of its clusters, in a Secret of this name.
            return server_tls.of_ours(host, postgres.tls, authority=f"{host}-ca")
        case "statefulset" | "cloudnativepg":
            return server_tls.of_ours(host, postgres.tls) if postgres.tls else None


def _resolvers(network: NetworkSettings) -> tuple[Resolver, ...]:
    more = (Resolver(cidrs=network.dns_cidrs),) if network.dns_cidrs else ()
    return (*(RESOLVERS[name] for name in network.dns), *more)


def _web(platform: Platform, settings: Settings) -> Web:
    web = settings.web
    address = platform.web_address(settings)
    return Web(
        **inherited(web, WebServer),
        host=address.host,
        port=address.port,
        bind=platform.bind,
        behind_proxy=platform.behind_proxy,
        cpu_target_percent=web.cpu_target if web.max_replicas > web.min_replicas else None,
    )


def _celery(settings: Settings) -> Celery:
    queues = settings.celery.queues
    return settings.celery.model_copy(
        update={"queues": (*queues, *(tenant for tenant in settings.tenants if tenant not in queues))}
    )


def _tenant(settings: Settings, tenant_id: str, tenant: TenantSettings) -> Tenant:
    celery = settings.celery
    # Its members get a role of this name when they log in, by which they are recognised from then on.
    roles = (*tenant.roles, *((tenant_role(tenant_id),) if tenant.groups else ()))
    terms: dict[str, Any] = {**inherited(tenant, TenantTerms), "roles": roles}
    return Tenant(
        **terms,
        id=tenant_id,
        queue=tenant_id,
        pool=tenant_id if tenant.pool == "dedicated" else _shared_pool(settings),
        soft_time_limit_seconds=tenant.soft_time_limit or celery.soft_time_limit_seconds,
        time_limit_seconds=tenant.time_limit or celery.time_limit_seconds,
        statement_timeout_seconds=tenant.statement_timeout or settings.statement_timeout,
    )


def tenant_role(tenant_id: str) -> str:
    """The role, without permissions, that the members of a tenant's groups have."""
    return f"Tenant {tenant_id}"


def _shared_pool(settings: Settings) -> str:
    """The pool that listens to the default queue, and so to those of the tenants without workers of their own."""
    default = settings.celery.default_queue
    return next((name for name, pool in settings.pools.items() if default in (pool.queues or (name,))), default)


def _pools(platform: Platform, settings: Settings) -> tuple[Pool, ...]:
    of_tenants = {
        tenant_id: WorkerOverrides(
            concurrency=tenant.concurrency, min_workers=tenant.min_workers, max_workers=tenant.max_workers
        )
        for tenant_id, tenant in settings.tenants.items()
        if tenant.pool == "dedicated"
    }
    return tuple(_pool(platform, settings, name, overrides) for name, overrides in (of_tenants | settings.pools).items())


def _pool(platform: Platform, settings: Settings, name: str, overrides: WorkerOverrides) -> Pool:
    tenant = settings.tenants.get(name) if name not in settings.pools else None
    shared = tuple(tenant_id for tenant_id, other in settings.tenants.items() if other.pool == "shared")
    queues = (*(overrides.queues or (name,)), *(shared if name == _shared_pool(settings) else ()))
    workers = overrides.over(settings.workers)
    return Pool(
        **inherited(workers, WorkerSettings),
        name=name,
        tenant=name if tenant else None,
        priority=tenant.priority if tenant else "normal",
        quota=tenant.quota if tenant else None,
        queues=queues,
        shares=tuple(_share(settings, queue, workers.concurrency) for queue in queues) if len(queues) > 1 else (),
        elastic=platform.elastic_workers,
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


def _beat(settings: Settings) -> Beat:
    keep = settings.maintenance
    jobs: list[ScheduledJob] = []
    if settings.superset.feature_flags.get("ALERT_REPORTS"):
        jobs.append(ScheduledJob(name="reports", task="reports.scheduler", cron="* * * * *", kwargs={}))
        jobs.append(ScheduledJob(name="report-logs", task="reports.prune_log", cron="0 0 * * *", kwargs={}))
    if settings.celery.result_backend == "postgresql":
        jobs.append(ScheduledJob(name="celery-results", task="celery.backend_cleanup", cron="7 * * * *", kwargs={}))
    # Of a tenant that was removed.
    jobs.append(ScheduledJob(name="retired-queues", task="superset_async.empty_retired_queues", cron="* * * * *", kwargs={}))
    for name, task, days in (
        ("queries", "prune_query", keep.query_retention_days),
        ("executions", "superset_async.prune_executions", keep.query_retention_days or 90),
        ("logs", "prune_logs", keep.log_retention_days),
    ):
        if days is not None:
            jobs.append(ScheduledJob(name=name, task=task, cron=keep.cron, kwargs={"retention_period_days": days}))
    return Beat(jobs=tuple(jobs), resources=settings.beat_resources)


def _exporter(platform: Platform, settings: Settings) -> Exporter:
    address = platform.exporter_address(settings)
    return Exporter(**inherited(settings.metrics, MetricsSettings), host=address.host, port=address.port, bind=platform.bind)


def uri_variable(name: str) -> str:
    """The environment variable with the URI of the analytic database `name`, where its stack file has none."""
    return f"DATABASE_URI_{name.upper().replace('-', '_')}"


def _databases(settings: Settings) -> tuple[AnalyticDatabase, ...]:
    return tuple(
        AnalyticDatabase(
            **inherited(database, DatabaseOptions),
            name=name,
            uri_env=None if database.uri else uri_variable(name),
            statement_timeout_seconds=database.statement_timeout or settings.statement_timeout,
            keep_connections=(
                database.sample and not database.allow_dml
                if database.keep_connections is None
                else database.keep_connections
            ),
        )
        for name, database in settings.databases.items()
    )
