"""ElastiCache and RDS: what they take of what a stack says of its servers."""

from __future__ import annotations

from collections.abc import Iterator

from topology.aws import catalogue
from topology.model import Topology
from topology.platforms.aws.decisions import settings_of
from topology.problems import Problem
from topology.quantities import GIB, format_memory
from topology.settings import Settings

#: Roles that RDS for PostgreSQL keeps for itself.
RESERVED_USERS = ("rdsadmin", "rdsrepladmin", "rds_superuser", "rds_replication", "rds_iam", "admin")


def redis_fits(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """ElastiCache keeps no append-only file and needs no Sentinel; its nodes have the memory that the stack asks for."""
    given = settings_of(settings)
    for key, redis in settings.redis.servers().items():
        if redis.existing:
            continue
        wanted = given.redis.broker if key == "redis.broker" else given.redis.cache
        if redis.persistence == "aof":
            yield Problem(
                f"{key}.persistence",
                "aof",
                "is not there on AWS: ElastiCache has replicas and snapshots, and no append-only file",
                "Set rdb",
            )
        if redis.persistence == "rdb" and not wanted.snapshot_days:
            yield Problem(
                f"aws.{key}.snapshot_days",
                "0",
                f"keeps no snapshot, which {key}.persistence rdb asks for",
                f"Raise it, or set {key}.persistence to none where everything in it can be lost",
                also=(f"{key}.persistence",),
            )
        if redis.sentinel:
            yield Problem(f"{key}.sentinel", "true", "is not for AWS: ElastiCache itself fails over", "Set it to false")
        if not 0 <= redis.replicas <= 5:
            yield Problem(f"{key}.replicas", str(redis.replicas), "must be at most 5: ElastiCache takes no more", "Lower it")
        if wanted.node_type.startswith("cache.t") and redis.replicas and wanted.node_type.endswith(".micro"):
            yield Problem(
                f"aws.{key}.node_type",
                wanted.node_type,
                "is too small to fail over under load",
                "Take cache.t4g.small or larger",
            )
        memory = catalogue.NODE_MEMORY.get(wanted.node_type)
        room = None if memory is None else memory * (100 - given.redis.reserved_memory_percent) // 100
        if room is not None and redis.maxmemory_bytes > room:
            yield Problem(
                f"{key}.maxmemory",
                format_memory(redis.maxmemory_bytes),
                f"is more than a {wanted.node_type} has for data: {room // 2**20}Mi, "
                f"{given.redis.reserved_memory_percent} % of its memory being reserved",
                f"Lower it, or take a larger aws.{key}.node_type",
                also=(f"aws.{key}.node_type", "aws.redis.reserved_memory_percent"),
            )
    if settings.redis.tls:
        yield Problem(
            "redis.tls",
            settings.redis.tls.kind,
            "is not for AWS: ElastiCache has certificates of its own",
            "Set it to null",
        )


def postgres_fits(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The metadata database is RDS's or exists; its class has the memory for all connections, its storage is one RDS makes."""
    given, postgres = settings_of(settings).postgres, settings.postgres
    if postgres.kind not in ("rds", "existing"):
        yield Problem(
            "postgres.kind",
            postgres.kind,
            "is not for platform aws",
            "Leave it out (rds), or use existing",
            also=("platform",),
        )
    if postgres.kind != "rds":
        return
    if postgres.backup is not None:
        yield Problem(
            "postgres.backup", "…", "is not for RDS, which has its own (aws.postgres.backup_days)", "Set it to null"
        )
    storage, (least, most) = -(-postgres.volume_bytes // GIB), catalogue.STORAGE_GIB
    if not least <= storage <= most:
        yield Problem(
            "postgres.volume_size",
            format_memory(postgres.volume_bytes),
            f"must be from {least}Gi to {most}Gi: RDS makes no other storage of type gp3",
            "Change it",
        )
    if given.max_storage_gib < storage:
        yield Problem(
            "aws.postgres.max_storage_gib",
            str(given.max_storage_gib),
            f"must be at least postgres.volume_size ({storage} GiB)",
            "Raise it",
            also=("postgres.volume_size",),
        )
    if given.instance_class in catalogue.CLASS_MEMORY:
        most_connections = catalogue.connections(given.instance_class)
        if topology.postgres.max_connections > most_connections:
            yield Problem(
                "aws.postgres.instance_class",
                given.instance_class,
                f"has memory for {most_connections} connections, and the tiers may open {topology.postgres.max_connections}",
                "Take a larger class, or lower max_workers, concurrency or the connection pools",
                also=("postgres.max_connections", "web", "workers", "pools", "tenants", "celery.connections"),
            )
    if given.insights_days not in catalogue.INSIGHTS_DAYS[given.insights_mode]:
        yield Problem(
            "aws.postgres.insights_days",
            str(given.insights_days),
            "must be 7, 731 or a multiple of 31; 465 where insights_mode is advanced",
            "Change it, or aws.postgres.insights_mode",
            also=("aws.postgres.insights_mode",),
        )


def names_are_free(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The metadata database's role is none that RDS has itself."""
    if settings.postgres.kind == "rds" and settings.postgres.user in RESERVED_USERS:
        yield Problem("postgres.user", settings.postgres.user, "is a role that RDS keeps for itself", "Choose another")
