"""The `aws` platform: workloads as on Kubernetes, on EKS; Redis is ElastiCache, PostgreSQL is RDS, results are in S3.

Hosts of ElastiCache and RDS are known only once they are made: until then a server's host is its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from topology.aws import catalogue, subnets
from topology.aws.model import Aws, DatabaseInstance, ReplicationGroup
from topology.model import Postgres, RedisInstance, Topology
from topology.platforms import aws_limits
from topology.platforms.kubernetes import (
    KUBERNETES,
    configuration_fits,
    names_are_resolved,
    namespace_is_the_stacks_own,
    no_sample_database,
    stack_is_a_label,
)
from topology.problems import Problem, did_you_mean
from topology.quantities import GIB, format_memory
from topology.settings import Settings
from topology.settings.aws import AwsSettings
from topology.settings.caching import ResultsBucket

DAY = 86_400
#: Where the image has the authorities of RDS's certificates (`runtime/environment`).
RDS_CA_FILE = "/app/runtime/environment/rds-ca-rsa2048-g1.pem"
#: Without a way to the Internet these must be in the VPC: images, credentials, logs, nodes that join, load balancers.
NEEDED_ENDPOINTS = ("ecr.api", "ecr.dkr", "sts", "logs", "eks-auth", "ec2", "eks", "elasticloadbalancing", "kms")
#: Names that AWS makes of a stack's: what is put behind it, and how long the whole may be.
NAMES = {
    "replication group": ("-broker", 40),
    "user of a replication group": ("-broker-broker", 40),
    "RDS instance": ("-metadata", 63),
    "bucket": ("-results-123456789012", 63),
}
#: Of a zone's addresses pods may take so many in a hundred: nodes, load balancers and rolling updates need some too.
PODS_PERCENT = 50


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
    return topology.model_copy(update={"aws": decided, "caching": caching, "postgres": postgres})


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


def values_exist(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Regions, versions, node types and instance classes are ones that AWS has (`topology.aws.catalogue`)."""
    given = settings_of(settings)
    known: list[tuple[str, str, Sequence[str]]] = [("aws.region", given.region, catalogue.REGIONS)]
    ours = {key: redis for key, redis in settings.redis.servers().items() if not redis.existing}
    if ours:
        known.append(("aws.redis.engine_version", given.redis.engine_version, tuple(catalogue.VALKEY)))
    for key in ours:
        wanted = given.redis.broker if key == "redis.broker" else given.redis.cache
        known.append((f"aws.{key}.node_type", wanted.node_type, tuple(catalogue.NODE_MEMORY)))
    if settings.postgres.kind == "rds":
        known += [
            ("aws.postgres.engine_version", given.postgres.engine_version, tuple(catalogue.POSTGRESQL)),
            ("aws.postgres.instance_class", given.postgres.instance_class, tuple(catalogue.CLASS_MEMORY)),
        ]
    if given.cluster.existing is None:
        known.append(("aws.cluster.version", given.cluster.version, catalogue.KUBERNETES))
        known += [("aws.cluster.instance_types", each, tuple(catalogue.INSTANCES)) for each in given.cluster.instance_types]
    for key, value, values in known:
        if value not in values:
            rule = f"is none that this project knows of AWS ({catalogue.AS_OF})"
            yield Problem(key, repr(value), rule, did_you_mean(value, values))


def names_fit(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """What AWS calls by the stack's name takes it: its length, and its letters."""
    for what, (ending, most) in NAMES.items():
        name = f"{topology.stack}{ending}"
        if len(name) > most:
            yield Problem(
                "the stack's name",
                topology.stack,
                f"makes {name!r}, the name of a {what}, longer than {most} letters",
                "Choose a shorter name for the stack",
            )
    if "--" in topology.stack or not topology.stack.replace("-", "").isalnum() or topology.stack.lower() != topology.stack:
        yield Problem(
            "the stack's name",
            topology.stack,
            "must be lower-case letters and digits with single '-' between them: ElastiCache takes no other",
            "Choose another name for the stack",
        )


def network_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Two zones or more of the region, addresses for every pod, and without a way out all that pods need of AWS."""
    given = settings_of(settings)
    network = given.network
    if network.existing:
        if len(network.existing.subnet_ids) < 2:
            yield Problem(
                "aws.network.existing.subnet_ids",
                str(len(network.existing.subnet_ids)),
                "must be two subnets or more, in different zones: RDS and EKS take no fewer",
                "Name a private subnet of each zone",
            )
        return
    for zone in network.zones:
        if not zone.startswith(given.region) or len(zone) != len(given.region) + 1 or not zone[-1].isalpha():
            yield Problem(
                "aws.network.zones",
                repr(zone),
                f"is no zone of region {given.region}",
                f"Write it as in {given.region}a",
                also=("aws.region",),
            )
    if len(network.zones) < 2:
        yield Problem(
            "aws.network.zones",
            str(len(network.zones)),
            "must be two or more: RDS and EKS take no fewer, and a broker in one zone is lost with it",
            "Name three",
        )
    try:
        divided = subnets.divide(network.cidr, network.zones)
    except ValueError as error:
        rule, _, fix = str(error).partition("|")
        key = "aws.network.zones" if "zone" in rule else "aws.network.cidr"
        yield Problem(key, str(network.cidr if key.endswith("cidr") else list(network.zones)), rule, fix)
    else:
        pods = most_pods(topology)
        room = sum(each.private_addresses for each in divided) * PODS_PERCENT // 100
        if pods > room:
            yield Problem(
                "aws.network.cidr",
                network.cidr,
                f"has room for {room} pods beside nodes and rolling updates, and there may be {pods}: each has an address",
                "Take a larger network, such as a /16",
                also=("workers", "pools", "tenants", "web"),
            )
    needed = [*NEEDED_ENDPOINTS, *(["secretsmanager"] if topology.postgres.password_secret_arn else [])]
    missing = [each for each in needed if each not in network.endpoints]
    if network.nat == "none" and missing:
        yield Problem(
            "aws.network.endpoints",
            ", ".join(network.endpoints) or "none",
            f"must have {', '.join(missing)}: without NAT nothing else leads to these services",
            "Add them, or set aws.network.nat to one or zone",
            also=("aws.network.nat",),
        )


def most_pods(topology: Topology) -> int:
    """The most pods that a stack may have at once: web, workers, beat, exporter, the init job; rolling updates add a quarter."""
    most = topology.web.max_replicas + sum(pool.max_workers for pool in topology.pools) + 3
    return -(-most * 5 // 4)


def account_is_given(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Which account it is, is no matter of the credentials that happen to be at hand."""
    given = settings_of(settings)
    if given.account is None:
        yield Problem(
            "aws.account", "null", "must be the number of the AWS account", "aws sts get-caller-identity prints it"
        )
    elif given.repository and not topology.images.superset.startswith(registry(given) + "/"):
        yield Problem(
            "images.superset",
            topology.images.superset,
            f"is not in the stack's own repository: nodes pull from {registry(given)}/{given.repository}",
            f"Write it as in {registry(given)}/{given.repository}:6.1.0-1, or set aws.repository to null",
            also=("aws.account", "aws.region", "aws.repository"),
        )
    balancer = given.load_balancer
    if balancer and f":acm:{given.region}:" not in balancer.certificate_arn:
        yield Problem(
            "aws.load_balancer.certificate_arn",
            balancer.certificate_arn,
            f"is not in region {given.region}, and a load balancer takes only its own region's",
            "Request the certificate there",
            also=("aws.region",),
        )
    if balancer and not balancer.cidrs:
        yield Problem("aws.load_balancer.cidrs", "[]", "lets nobody connect", "Name the networks of its users")


def registry(given: AwsSettings) -> str:
    """The host of the account's ECR registry."""
    return f"{given.account}.dkr.ecr.{given.region}.amazonaws.com"


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
    if settings.redis.tls_secret:
        yield Problem(
            "redis.tls_secret",
            settings.redis.tls_secret,
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


def way_in_is_aws_own(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The load balancer is the way in; and the bucket of results is the platform's to name."""
    if settings.web.route is not None:
        yield Problem("web.route", "…", "is not for platform aws", "Set it to null, and use aws.load_balancer")
    if settings.caching.bucket is not None:
        yield Problem(
            "caching.bucket",
            "…",
            "is not for platform aws, which makes one of its own",
            "Set it to null: aws.results decides",
        )
    if settings.caching.spill is not None and settings_of(settings).results == "s3":
        yield Problem(
            "caching.spill",
            "…",
            "would keep only charts' data: SQL Lab's rows are in the bucket, whatever their size",
            "Set it to null, or aws.results to redis",
            also=("aws.results",),
        )


def cluster_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Nodes of one architecture, in a range; KEDA where pools are scaled by it."""
    cluster = settings_of(settings).cluster
    if cluster.existing:
        return
    if cluster.compute == "managed":
        if cluster.min_nodes > cluster.max_nodes:
            yield Problem(
                "aws.cluster.min_nodes",
                str(cluster.min_nodes),
                f"must be at most aws.cluster.max_nodes ({cluster.max_nodes})",
                "Lower it",
                also=("aws.cluster.max_nodes",),
            )
        if len({catalogue.architecture(each) for each in cluster.instance_types}) != 1:
            yield Problem(
                "aws.cluster.instance_types",
                ", ".join(cluster.instance_types) or "none",
                "must be types of one architecture: an image is built for one",
                "Name Graviton types (m7g) or others (m7i), not both",
            )
    if cluster.keda_manifest is None and any(pool.scaling and pool.scaling.kind == "keda" for pool in topology.pools):
        yield Problem(
            "aws.cluster.keda_manifest",
            "null",
            "must name KEDA's manifests: a new cluster has no KEDA, and workers.scaling.kind is keda",
            "Give a file, or the URL of a release's keda-<version>.yaml; or set workers.scaling to null",
            also=("workers.scaling", "pools"),
        )


AWS = replace(
    KUBERNETES,
    redis_speaks_tls=True,
    postgres_ca_file=RDS_CA_FILE,
    complete=complete,
    rules=(
        names_are_resolved,
        configuration_fits,
        namespace_is_the_stacks_own,
        stack_is_a_label,
        no_sample_database,
        values_exist,
        names_fit,
        account_is_given,
        network_is_complete,
        cluster_is_complete,
        redis_fits,
        postgres_fits,
        way_in_is_aws_own,
        *aws_limits.RULES,
    ),
)
