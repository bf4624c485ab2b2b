"""Rules about AWS: encrypted, in several zones, backed up, protected from deletion, not public, tagged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from policies.graph import UNKNOWN, Graph, Resource, UnknownValueError, at, maybe
from policies.rule import Option, Options, Plain, Rules, types

RULES = Rules("policy-aws")
_ANYWHERE = ("0.0.0.0/0", "::/0")
_redis = types("aws:elasticache/replicationGroup:")
_postgres = types("aws:rds/instance:", "aws:rds/cluster:")
_buckets = types("aws:s3/bucket:", "aws:s3/bucketV2:")
_clusters = types("aws:eks/cluster:")


@RULES.rule(
    "aws-redis-encryption",
    _redis,
    fix="Set transit_encryption_enabled, at_rest_encryption_enabled, and auth_token or user_group_ids",
    runbook="encryption",
    alone=True,
)
def redis_encryption(group: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Results and passwords cross the network and lie on disks: without encryption whoever gets there reads them."""
    for key in ("transitEncryptionEnabled", "atRestEncryptionEnabled"):
        if not group.get(key):
            yield f"has {key} off"
    if group.get("authToken") is None and group.get("userGroupIds") is None:
        yield "asks its clients for no password"


@RULES.rule(
    "aws-redis-key",
    _redis,
    fix="Set kms_key_id to a key of your own",
    runbook="keys",
    alone=True,
)
def redis_key(group: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Only a key of your own can be taken away from whoever should read no more."""
    if group.get("atRestEncryptionEnabled") and group.get("kmsKeyId") is None:
        yield "is encrypted by AWS's key"


@RULES.rule(
    "aws-redis-default-user",
    types("aws:elasticache/user:"),
    fix="Leave the user default out of a Valkey user group, or turn it off",
    runbook="encryption",
    alone=True,
)
def redis_default_user(user: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Whoever names no user is the user default, with all of its rights."""
    if user.get("userName") == "default" and "off" not in str(user.get("accessString", default="")).split():
        yield "lets in clients that name no user"


@RULES.rule(
    "aws-redis-zones",
    _redis,
    fix="Set num_cache_clusters ≥ 2 (or replicas_per_node_group ≥ 1), automatic_failover_enabled and multi_az_enabled",
    runbook="zones",
    loses_data=True,
    alone=True,
)
def redis_zones(group: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """ElastiCache has no append-only file: a replica in another zone is what survives the loss of a node."""
    if group.get("numCacheClusters", default=1) < 2 and group.get("replicasPerNodeGroup", default=0) < 1:
        yield "has no replica"
    for key in ("automaticFailoverEnabled", "multiAzEnabled"):
        if not group.get(key):
            yield f"has {key} off"


@RULES.rule(
    "aws-redis-memory",
    types("aws:elasticache/parameterGroup:"),
    severity="advisory",
    fix="Set reserved-memory-percent to 25 or more (the default)",
    runbook="zones",
    alone=True,
)
def redis_memory(group: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Snapshots and synchronizations of replicas need memory beside the data."""
    for parameter in group.get("parameters", default=[]):
        if at(parameter, "name") == "reserved-memory-percent" and int(at(parameter, "value")) < 25:
            yield f"reserves {at(parameter, 'value')} % of the memory"


@RULES.rule(
    "aws-redis-single-node",
    types("aws:elasticache/cluster:"),
    fix="Use a replication group",
    runbook="zones",
    alone=True,
)
def redis_single_node(cluster: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A cluster of its own has no replica, no encryption in transit and no failover."""
    if cluster.get("engine", default="redis") != "memcached" and cluster.get("replicationGroupId") is None:
        yield "is a single node"


@RULES.rule(
    "aws-postgres-encryption",
    _postgres,
    fix="Set storage_encrypted",
    runbook="encryption",
    alone=True,
)
def postgres_encryption(database: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """The metadata database holds the passwords of every analytic database."""
    if not database.get("storageEncrypted"):
        yield "has storage that is not encrypted"


@RULES.rule(
    "aws-postgres-key",
    types("aws:rds/instance:"),
    fix="Set kms_key_id, and performance_insights_kms_key_id, to a key of your own",
    runbook="keys",
    alone=True,
)
def postgres_key(database: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Insights hold statements with their values, as the storage holds the data: both need a key that you can take away."""
    if database.get("storageEncrypted") and database.get("kmsKeyId") is None and database.get("replicateSourceDb") is None:
        yield "has storage that is encrypted by AWS's key"
    if database.get("performanceInsightsEnabled") and database.get("performanceInsightsKmsKeyId") is None:
        yield "has insights that are encrypted by AWS's key"


@RULES.rule(
    "aws-key-rotation",
    types("aws:kms/key:"),
    fix="Set enable_key_rotation",
    runbook="keys",
    alone=True,
)
def key_rotation(key: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A key that is never rotated encrypts all that there ever was."""
    symmetric = key.get("customerMasterKeySpec", default="SYMMETRIC_DEFAULT") == "SYMMETRIC_DEFAULT"
    if symmetric and not key.get("enableKeyRotation"):
        yield "is never rotated"


@RULES.rule(
    "aws-postgres-zones",
    types("aws:rds/instance:"),
    fix="Set multi_az",
    runbook="zones",
    alone=True,
)
def postgres_zones(database: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """One zone's outage takes the metadata database, and with it everything."""
    if not database.get("multiAz") and database.get("replicateSourceDb") is None and not database.get("clusterIdentifier"):
        yield "runs in one zone"


@RULES.rule(
    "aws-postgres-backups",
    _postgres,
    fix="Set backup_retention_period ≥ 7, deletion_protection, and skip_final_snapshot false",
    runbook="backups",
    loses_data=True,
    alone=True,
)
def postgres_backups(database: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Dashboards, users and saved passwords exist nowhere else."""
    if database.get("replicateSourceDb") is None and database.get("backupRetentionPeriod", default=0) < 7:
        yield f"keeps backups {database.get('backupRetentionPeriod', default=0)} days"
    if not database.get("deletionProtection"):
        yield "can be deleted"
    if database.get("skipFinalSnapshot"):
        yield "is deleted without a last snapshot"


@RULES.rule(
    "aws-postgres-public",
    types("aws:rds/instance:", "aws:rds/clusterInstance:"),
    fix="Set publicly_accessible false",
    runbook="public",
    alone=True,
)
def postgres_public(database: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A database with a public address is attacked within minutes."""
    if database.get("publiclyAccessible"):
        yield "has a public address"


@RULES.rule(
    "aws-bucket-public",
    _buckets,
    fix="Add a BucketPublicAccessBlock with all four settings true",
    runbook="public",
)
def bucket_public(bucket: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Query results in a public bucket are the usual data leak."""
    block = _companion(bucket, graph, "aws:s3/bucketPublicAccessBlock:")
    keys = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    missing = [key for key in keys if block is None or not block.get(key)]
    if missing:
        yield f"has {', '.join(missing)} off"
    if bucket.get("acl", default="private") != "private":
        yield f"has acl {bucket.get('acl')}"


@RULES.rule(
    "aws-bucket-encryption",
    _buckets,
    fix="Add a BucketServerSideEncryptionConfiguration",
    runbook="encryption",
)
def bucket_encryption(bucket: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Query results lie there as files."""
    own = bucket.get("serverSideEncryptionConfiguration")
    if own is None and _companion(bucket, graph, "aws:s3/bucketServerSideEncryptionConfiguration") is None:
        yield "has no encryption of its own"


@RULES.rule(
    "aws-bucket-key",
    types("aws:s3/bucketServerSideEncryptionConfiguration"),
    fix="Set bucket_key_enabled",
    runbook="keys",
    severity="advisory",
    alone=True,
)
def bucket_key(encryption: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Without a bucket key each object costs a call of KMS, whose rate the account shares."""
    for rule in encryption.get("rules", default=[]):
        kms = str(at(rule, "applyServerSideEncryptionByDefault", "sseAlgorithm", default="")).startswith("aws:kms")
        if kms and not at(rule, "bucketKeyEnabled"):
            yield "encrypts each object by a call of KMS"


@RULES.rule(
    "aws-bucket-lifecycle",
    _buckets,
    fix="Add a BucketLifecycleConfiguration with an expiration",
    runbook="lifecycle",
    severity="advisory",
    options={"kept": Option([], "names of buckets whose objects are meant to stay")},
)
def bucket_lifecycle(bucket: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Results that nobody can ask for any more are kept, and paid for, for ever."""
    lifecycle = _companion(bucket, graph, "aws:s3/bucketLifecycleConfiguration")
    rules = bucket.get("lifecycleRules", default=[]) if lifecycle is None else lifecycle.get("rules", default=[])
    enabled = [each for each in rules if at(each, "status", default="Enabled") == "Enabled" and at(each, "expiration")]
    if not enabled and bucket.resource.name not in options["kept"]:
        yield "has no rule that expires objects"


def _companion(bucket: Plain, graph: Graph, token: str) -> Resource | None:
    """The resource of a type that belongs to a bucket: names it, depends on it, or stands beside it with its name."""
    names = {each for each in (maybe(bucket.resource.inputs, "bucket"), bucket.resource.name) if isinstance(each, str)}
    for each in graph.of_type(token):
        named = maybe(each.inputs, "bucket")
        if (isinstance(named, str) and named in names) or (bucket.resource.urn and bucket.resource.urn in each.dependencies):
            return each
    if maybe(bucket.resource.inputs, "bucket") is UNKNOWN or any(
        maybe(each.inputs, "bucket") is UNKNOWN for each in graph.of_type(token)
    ):
        raise UnknownValueError
    return None


@RULES.rule(
    "aws-eks-encryption",
    _clusters,
    fix="Set encryption_config with a KMS key for secrets",
    runbook="encryption",
    alone=True,
)
def eks_encryption(cluster: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Secrets of the cluster lie in its etcd."""
    if "secrets" not in at(cluster.get("encryptionConfig", default={}), "resources", default=[]):
        yield "keeps Secrets without a key of your own"


@RULES.rule(
    "aws-eks-public",
    _clusters,
    fix="Set endpoint_public_access false, or public_access_cidrs to your own networks",
    runbook="public",
    alone=True,
)
def eks_public(cluster: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """An API server that the whole Internet reaches is one stolen token away from the cluster."""
    vpc = cluster.get("vpcConfig", default={})
    cidrs = at(vpc, "publicAccessCidrs", default=["0.0.0.0/0"])
    if at(vpc, "endpointPublicAccess", default=True) and set(cidrs) & set(_ANYWHERE):
        yield "lets the whole Internet reach its API server"


@RULES.rule(
    "aws-eks-logs",
    _clusters,
    severity="advisory",
    fix="Set enabled_cluster_log_types with audit and authenticator",
    runbook="public",
    alone=True,
)
def eks_logs(cluster: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Without the audit log nobody can say afterwards who did what."""
    enabled = cluster.get("enabledClusterLogTypes", default=[])
    missing = [each for each in ("audit", "authenticator") if each not in enabled]
    if missing:
        yield f"does not log {', '.join(missing)}"


@RULES.rule(
    "aws-firewall-open",
    types("aws:ec2/securityGroup:", "aws:ec2/securityGroupRule:", "aws:vpc/securityGroupIngressRule:"),
    fix="Name the source by security group, or by your own networks",
    runbook="public",
    alone=True,
    options={"ports": Option(["443"], "ports that may be open to anywhere")},
)
def firewall_open(group: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A data store's port that is open to the Internet is found within minutes."""
    for rule in _ingress(group):
        sources = {
            *at(rule, "cidrBlocks", default=[]),
            *at(rule, "ipv6CidrBlocks", default=[]),
            *(each for each in (at(rule, "cidrIpv4"), at(rule, "cidrIpv6")) if each),
        }
        ports = f"{at(rule, 'fromPort', default=0)}", f"{at(rule, 'toPort', default=65535)}"
        if sources & set(_ANYWHERE) and not (ports[0] == ports[1] and ports[0] in options["ports"]):
            yield f"is open to anywhere on ports {ports[0]} to {ports[1]}"


@RULES.rule(
    "aws-firewall-description",
    types("aws:ec2/securityGroup:", "aws:vpc/securityGroupIngressRule:", "aws:vpc/securityGroupEgressRule:"),
    fix="Say in the description who connects to what",
    runbook="public",
    severity="advisory",
    alone=True,
)
def firewall_description(group: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A rule that nobody can explain is one that nobody dares to remove."""
    if str(group.get("description", default="Managed by Pulumi")).strip() in ("", "Managed by Pulumi"):
        yield "does not say what it is for"


@RULES.rule(
    "aws-iam-wildcard",
    types("aws:iam/policy:", "aws:iam/rolePolicy:", "aws:iam/userPolicy:", "aws:iam/groupPolicy:"),
    fix="Name the actions and the ARNs of the resources",
    runbook="rights",
    alone=True,
)
def iam_wildcard(policy: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A role that may do everything with something, or something with everything, is what an intruder looks for."""
    document = policy.get("policy")
    statements = at(json.loads(document) if isinstance(document, str) else document, "Statement", default=[])
    for statement in statements if isinstance(statements, list) else [statements]:
        if at(statement, "Effect") != "Allow":
            continue
        actions, resources = _listed(statement, "Action"), _listed(statement, "Resource")
        if at(statement, "NotAction") is not None or at(statement, "NotResource") is not None:
            yield "allows all but what it names"
        for action in actions:
            if action == "*" or action.endswith(":*"):
                yield f"allows {action}"
        if "*" in resources:
            yield f"allows {', '.join(actions)} on every resource"


def _listed(statement: Any, key: str) -> list[str]:
    found = at(statement, key, default=[])
    return [found] if isinstance(found, str) else list(found)


def _ingress(group: Plain) -> list[Any]:
    if group.resource.kind == "SecurityGroup":
        return group.get("ingress", default=[])
    return [group.resource.inputs] if group.get("type", default="ingress") == "ingress" else []


_TAGGED = types(
    "aws:elasticache/replicationGroup:",
    "aws:rds/instance:",
    "aws:s3/bucket",
    "aws:eks/cluster:",
    "aws:ec2/vpc:",
    "aws:ec2/securityGroup:",
    "aws:kms/key:",
)


def _tagged(graph: Graph) -> list[Plain]:
    return [each for each in _TAGGED(graph) if each.resource.kind not in _COMPANIONS]


#: Parts of a bucket, which take no tags.
_COMPANIONS = frozenset(
    {
        "BucketPublicAccessBlock",
        "BucketServerSideEncryptionConfiguration",
        "BucketServerSideEncryptionConfigurationV2",
        "BucketLifecycleConfiguration",
        "BucketLifecycleConfigurationV2",
        "BucketVersioning",
        "BucketPolicy",
        "BucketOwnershipControls",
    }
)


@RULES.rule(
    "aws-tags",
    _tagged,
    fix="Set them once, as the provider's default_tags, or on the resource",
    runbook="tags",
    options={"required": Option(["Project", "Stack", "Environment"], "tags that every resource needs")},
)
def tags(found: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Cost, ownership and clean-up go by tags."""
    given = {**_default_tags(graph), **found.get("tags", default={}), **found.get("tagsAll", default={})}
    missing = [key for key in options["required"] if key not in given]
    if missing:
        yield f"has no tag {', '.join(missing)}"


def _default_tags(graph: Graph) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for provider in graph.of_type("pulumi:providers:aws"):
        defaults = provider.get("defaultTags", default={})
        # A provider's inputs are texts of JSON.
        found |= at(json.loads(defaults) if isinstance(defaults, str) else defaults, "tags", default={})
    return found
