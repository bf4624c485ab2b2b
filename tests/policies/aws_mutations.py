"""Ways to break a stack on AWS: keys of its file, and edits of the AWS resources that it registers, each for a rule to notice."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from policies.graph import Resource
from tests.policies.editor import Editor, NotApplicableError, set_at

Edit = Callable[[Editor], object]
#: Keys of a stack file (with / between them), and a value that the plan refuses.
SETTINGS: tuple[tuple[str, Any], ...] = (
    ("aws/account", None),
    ("aws/region", "eu-centrl-1"),
    ("aws/network/zones", ["eu-central-1a"]),
    ("aws/network/cidr", "10.0.0.0/27"),
    ("aws/network", {"nat": "none", "endpoints": ["sts"]}),
    ("aws/network/flow_log_days", 31),
    ("aws/cluster/version", "1.19"),
    ("aws/cluster/public_cidrs", ["0.0.0.0/0"]),
    ("aws/cluster/keda_manifest", None),
    ("aws/redis/engine_version", "8.9"),
    ("aws/redis/broker/node_type", "cache.m7g.lage"),
    ("aws/redis/broker/snapshot_days", 0),
    ("aws/redis/maintenance_window", "sun:01:00-sun:02:30"),
    ("redis/broker/replicas", 6),
    ("aws/postgres/instance_class", "db.t4g.medium"),
    ("aws/postgres/insights_days", 30),
    ("aws/postgres/max_storage_gib", 20),
    ("aws/postgres/backup_window", "04:15-04:45"),
    ("postgres/user", "rds_superuser"),
    ("images/superset", "docker.io/acme/superset-async:6.1.0-1"),
    ("caching/bucket", {"name": "results", "region": "eu-central-1"}),
)
_ANYWHERE = "0.0.0.0/0"


def _inputs(kind: str, name: str, **changes: Any) -> Edit:
    """Other inputs of an AWS resource; None takes one away."""

    def edit(graph: Editor) -> None:
        found = graph.find(kind, name)
        for key, value in changes.items():
            if value is None:
                del found[key]
            else:
                found[key] = value

    return edit


def _inside(kind: str, name: str, *path: Any) -> Edit:
    return lambda graph: set_at(graph.find(kind, name), *path)


def _parameter(group: str, name: str, value: str) -> Edit:
    def edit(graph: Editor) -> None:
        parameters = graph.find("ParameterGroup", group)["parameters"]
        next(each for each in parameters if each["name"] == name)["value"] = value

    return edit


def _drop(kind: str) -> Edit:
    return lambda graph: graph.drop(kind)


def _resource(token: str, name: str, **inputs: Any) -> Edit:
    """One more AWS resource, in a stack that has some."""

    def edit(graph: Editor) -> None:
        graph.find("Vpc")
        graph.resources.append(Resource(type=token, name=name, inputs=inputs, urn=f"urn:{token}::{name}"))

    return edit


def _statement(**elements: Any) -> Edit:
    """Other elements in the first statement of what web and workers may do."""

    def edit(graph: Editor) -> None:
        found = graph.find("RolePolicy", "results-access")
        document = json.loads(found["policy"])
        statement = document["Statement"][0]
        for key in ("Action", "Resource", "NotAction", "NotResource"):
            if key in elements or f"Not{key}" in elements:
                statement.pop(key, None)
        statement.update(elements)
        found["policy"] = json.dumps(document)

    return edit


def _scaler_reads_the_caches(graph: Editor) -> None:
    """The scaler watches the other replication group: its address differs in the second word alone."""
    metadata = graph.find("ScaledObject")["spec"]["triggers"][0]["metadata"]
    address = metadata.get("address", "")
    if "-broker." not in address:
        raise NotApplicableError("no address of ElastiCache")
    metadata["address"] = address.replace("-broker.", "-cache.")


def _without_tags(graph: Editor) -> None:
    """No default tags, so that only a resource's own name is left."""
    graph.find("Vpc")
    for each in graph.resources:
        if each.type == "pulumi:providers:aws":
            defaults = copy.deepcopy(each.inputs)
            defaults["defaultTags"] = json.dumps({"tags": {"Project": "superset-async"}})
            each.inputs.update(defaults)


#: Edits of what a stack registers, each with the rule that has to notice.
EDITS: tuple[tuple[str, str, Edit], ...] = (
    ("redis-broker-evicts", "ElastiCache: allkeys-lru", _parameter("redis-broker", "maxmemory-policy", "allkeys-lru")),
    (
        "redis-broker-not-persistent",
        "ElastiCache: no snapshots",
        _inputs("ReplicationGroup", "redis-broker", snapshotRetentionLimit=0),
    ),
    (
        "redis-cache-policy",
        "ElastiCache: caches under noeviction",
        _parameter("redis-cache", "maxmemory-policy", "noeviction"),
    ),
    ("scaling-watches-broker", "ElastiCache: the caches' replication group", _scaler_reads_the_caches),
    (
        "aws-redis-encryption",
        "ElastiCache: no TLS",
        _inputs("ReplicationGroup", "redis-broker", transitEncryptionEnabled=False),
    ),
    (
        "aws-redis-encryption",
        "ElastiCache: not encrypted at rest",
        _inputs("ReplicationGroup", "redis-cache", atRestEncryptionEnabled=None),
    ),
    ("aws-redis-encryption", "ElastiCache: no users", _inputs("ReplicationGroup", "redis-broker", userGroupIds=None)),
    ("aws-redis-key", "ElastiCache: AWS's key", _inputs("ReplicationGroup", "redis-broker", kmsKeyId=None)),
    (
        "aws-redis-default-user",
        "ElastiCache: a user default that is on",
        _resource("aws:elasticache/user:User", "default", userName="default", accessString="on ~* +@all", engine="valkey"),
    ),
    ("aws-redis-zones", "ElastiCache: one node", _inputs("ReplicationGroup", "redis-broker", numCacheClusters=1)),
    (
        "aws-redis-zones",
        "ElastiCache: no failover",
        _inputs("ReplicationGroup", "redis-broker", automaticFailoverEnabled=False),
    ),
    ("aws-redis-zones", "ElastiCache: one zone", _inputs("ReplicationGroup", "redis-broker", multiAzEnabled=None)),
    (
        "aws-redis-memory",
        "ElastiCache: no memory reserved",
        _parameter("redis-broker", "reserved-memory-percent", "0"),
    ),
    (
        "aws-redis-single-node",
        "ElastiCache: a cluster of its own",
        _resource("aws:elasticache/cluster:Cluster", "single", engine="valkey", clusterId="single"),
    ),
    ("aws-postgres-encryption", "RDS: not encrypted", _inputs("Instance", "postgres", storageEncrypted=False)),
    ("aws-postgres-key", "RDS: AWS's key", _inputs("Instance", "postgres", kmsKeyId=None)),
    ("aws-postgres-key", "RDS: insights under AWS's key", _inputs("Instance", "postgres", performanceInsightsKmsKeyId=None)),
    ("aws-postgres-zones", "RDS: one zone", _inputs("Instance", "postgres", multiAz=False)),
    ("aws-postgres-backups", "RDS: backups of a day", _inputs("Instance", "postgres", backupRetentionPeriod=1)),
    ("aws-postgres-backups", "RDS: can be deleted", _inputs("Instance", "postgres", deletionProtection=False)),
    ("aws-postgres-backups", "RDS: no last snapshot", _inputs("Instance", "postgres", skipFinalSnapshot=True)),
    ("aws-postgres-public", "RDS: a public address", _inputs("Instance", "postgres", publiclyAccessible=True)),
    ("aws-key-rotation", "KMS: a key that is never rotated", _inputs("Key", "redis-broker", enableKeyRotation=False)),
    (
        "aws-bucket-public",
        "S3: policies may make it public",
        _inputs("BucketPublicAccessBlock", "", blockPublicPolicy=False),
    ),
    ("aws-bucket-public", "S3: no block of public access", _drop("BucketPublicAccessBlock")),
    ("aws-bucket-encryption", "S3: no encryption of its own", _drop("BucketServerSideEncryptionConfiguration")),
    (
        "aws-bucket-key",
        "S3: a call of KMS for each object",
        _inside("BucketServerSideEncryptionConfiguration", "", "rules", 0, "bucketKeyEnabled", False),
    ),
    ("aws-bucket-lifecycle", "S3: nothing ends", _drop("BucketLifecycleConfiguration")),
    (
        "aws-bucket-lifecycle",
        "S3: the rule that ends objects is off",
        _inside("BucketLifecycleConfiguration", "", "rules", 0, "status", "Disabled"),
    ),
    ("aws-eks-encryption", "EKS: no key for Secrets", _inputs("Cluster", "", encryptionConfig=None)),
    (
        "aws-eks-public",
        "EKS: an API server for everyone",
        _inside("Cluster", "", "vpcConfig", {"endpointPublicAccess": True, "publicAccessCidrs": [_ANYWHERE]}),
    ),
    ("aws-eks-logs", "EKS: no audit log", _inputs("Cluster", "", enabledClusterLogTypes=["api"])),
    (
        "aws-firewall-open",
        "firewall: the broker for everyone",
        lambda graph: (
            set_at(graph.find("SecurityGroupIngressRule", "redis-broker"), "cidrIpv4", _ANYWHERE),
            graph.find("SecurityGroupIngressRule", "redis-broker").pop("referencedSecurityGroupId"),
        ),
    ),
    (
        "aws-firewall-description",
        "firewall: a rule without a reason",
        _inputs("SecurityGroupIngressRule", "postgres", description=None),
    ),
    ("aws-iam-wildcard", "IAM: every action of S3", _statement(Action=["s3:*"])),
    ("aws-iam-wildcard", "IAM: every resource", _statement(Resource=["*"])),
    ("aws-iam-wildcard", "IAM: all but one action", _statement(NotAction=["s3:DeleteBucket"])),
    ("aws-tags", "no default tags", _without_tags),
)
