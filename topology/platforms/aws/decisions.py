"""What is made on AWS for a topology, and under which names."""

from __future__ import annotations

from topology.aws import catalogue
from topology.aws.model import Aws, DatabaseInstance, ReplicationGroup
from topology.model import Postgres, RedisInstance, Topology
from topology.platforms.aws import peers
from topology.quantities import GIB
from topology.settings import Settings
from topology.settings.aws import AwsSettings
from topology.settings.caching import ResultsBucket

DAY = 86_400


def settings_of(settings: Settings) -> AwsSettings:
    """The section `aws`, which the platform's preset always has; ValueError where it was set to null."""
    if settings.aws is None:
        raise ValueError("platform aws needs its section aws")
    return settings.aws


def bucket_name(stack: str, account: str) -> str:
    """The bucket of results; buckets of all accounts of AWS share one set of names."""
    return f"{stack}-results-{account}"


def complete(settings: Settings, topology: Topology) -> Topology:
    """The topology with what is made on AWS for it, and SQL Lab's rows in the bucket that is."""
    stack, given = topology.stack, settings_of(settings)
    account = given.account or ""
    auto = given.cluster.existing is None and given.cluster.compute == "auto"
    decided = Aws(
        account=account,
        region=given.region,
        network=given.network,
        cluster=given.cluster,
        redis=tuple(_group(stack, given, instance) for instance in topology.redis if not instance.existing),
        postgres=_database(stack, given, topology.postgres) if topology.postgres.kind == "rds" else None,
        bucket=bucket_name(stack, account) if given.results == "s3" else None,
        result_days=result_days(settings),
        repository=given.repository,
        load_balancer=given.load_balancer,
        controller="auto" if auto else "controller",
        alarm_emails=given.alarm_emails,
        tags={"Project": "superset-async", "Stack": stack, "Environment": settings.environment, **settings.labels},
    )
    caching = topology.caching
    if decided.bucket:
        # Not checked here: a name that cannot be is one of all problems (`names_fit`).
        bucket = ResultsBucket.model_construct(name=decided.bucket, region=given.region, endpoint=None, prefix="")
        caching = caching.model_copy(update={"bucket": bucket})
    postgres = topology.postgres
    if decided.postgres and decided.postgres.managed_password:
        # Its ARN is known only once RDS has made it: until then any of this stack's region and account.
        made_later = f"arn:aws:secretsmanager:{given.region}:{account}:secret:rds"
        postgres = postgres.model_copy(update={"password_secret_arn": made_later})
    topology = topology.model_copy(update={"aws": decided, "caching": caching, "postgres": postgres})
    return topology.model_copy(update={"egress": (*topology.egress, *peers.peers(decided, topology))})


def result_days(settings: Settings) -> int:
    """Whole days that the longest-lived result lasts, as a bucket's lifecycle counts them."""
    lifetimes = [settings.caching.query_results_ttl_seconds]
    lifetimes += [tenant.result_ttl_seconds for tenant in settings.tenants.values() if tenant.result_ttl_seconds]
    return -(-max(lifetimes) // DAY)


def _group(stack: str, given: AwsSettings, instance: RedisInstance) -> ReplicationGroup:
    wanted = given.redis.broker if instance.carries_broker else given.redis.cache
    node = catalogue.NODE_MEMORY.get(wanted.node_type, 0)
    return ReplicationGroup(
        instance=instance.name,
        identifier=f"{stack}-{'broker' if instance.carries_broker else 'cache'}",
        node_type=wanted.node_type,
        engine_version=given.redis.engine_version,
        family=catalogue.VALKEY.get(given.redis.engine_version, ""),
        nodes=1 + instance.replicas,
        memory_bytes=node * (100 - given.redis.reserved_memory_percent) // 100,
        maxmemory_policy=instance.maxmemory_policy,
        reserved_memory_percent=given.redis.reserved_memory_percent,
        snapshot_days=0 if instance.persistence == "none" else wanted.snapshot_days,
        snapshot_window=given.redis.snapshot_window,
        maintenance_window=given.redis.maintenance_window,
    )


def _database(stack: str, given: AwsSettings, postgres: Postgres) -> DatabaseInstance:
    wanted = given.postgres
    return DatabaseInstance(
        identifier=f"{stack}-metadata",
        family=catalogue.POSTGRESQL.get(wanted.engine_version, ""),
        storage_gib=-(-postgres.volume_bytes // GIB),
        **wanted.model_dump(),
    )
