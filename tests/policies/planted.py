"""Graphs for the rules that no shipped stack gives a target to: a file of Superset's own configuration, and AWS resources."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from policies.graph import Graph, Resource, from_manifests

FOREIGN = Path(__file__).parent / "foreign"
FOREIGN_NAMES = tuple(sorted(path.stem for path in FOREIGN.glob("*.yaml")))


def foreign(name: str) -> Graph:
    """Somebody else's manifests."""
    return from_manifests(yaml.safe_load_all((FOREIGN / f"{name}.yaml").read_text(encoding="utf-8")))


_TAGS = {"Project": "superset-async", "Stack": "prod", "Environment": "prod"}
_BUCKET = {"bucket": "results"}


def _policy(effect: str = "Allow", **elements: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": effect, **elements}]})


#: Everything that the rules about AWS look at, as it should be.
AWS: dict[str, tuple[str, dict[str, Any]]] = {
    "redis": (
        "aws:elasticache/replicationGroup:ReplicationGroup",
        {
            "replicationGroupId": "broker",
            "transitEncryptionEnabled": True,
            "atRestEncryptionEnabled": True,
            "kmsKeyId": "arn:aws:kms:x",
            "authToken": "a" * 40,
            "numCacheClusters": 2.0,
            "automaticFailoverEnabled": True,
            "multiAzEnabled": True,
            "snapshotRetentionLimit": 7.0,
            "parameterGroupName": "broker",
            "tags": _TAGS,
        },
    ),
    "parameters": (
        "aws:elasticache/parameterGroup:ParameterGroup",
        {
            "name": "broker",
            "family": "redis7",
            "parameters": [
                {"name": "maxmemory-policy", "value": "noeviction"},
                {"name": "reserved-memory-percent", "value": "25"},
            ],
        },
    ),
    "postgres": (
        "aws:rds/instance:Instance",
        {
            "engine": "postgres",
            "identifier": "metadata",
            "storageEncrypted": True,
            "kmsKeyId": "arn:aws:kms:x",
            "performanceInsightsEnabled": True,
            "performanceInsightsKmsKeyId": "arn:aws:kms:x",
            "multiAz": True,
            "backupRetentionPeriod": 7.0,
            "deletionProtection": True,
            "skipFinalSnapshot": False,
            "publiclyAccessible": False,
            "tags": _TAGS,
        },
    ),
    "bucket": ("aws:s3/bucket:Bucket", {**_BUCKET, "tags": _TAGS}),
    "block": (
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        {
            **_BUCKET,
            "blockPublicAcls": True,
            "blockPublicPolicy": True,
            "ignorePublicAcls": True,
            "restrictPublicBuckets": True,
        },
    ),
    "encryption": (
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        {
            **_BUCKET,
            "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}, "bucketKeyEnabled": True}],
        },
    ),
    "lifecycle": (
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        {**_BUCKET, "rules": [{"id": "expire", "status": "Enabled", "expiration": {"days": 1.0}}]},
    ),
    "cluster": (
        "aws:eks/cluster:Cluster",
        {
            "encryptionConfig": {"resources": ["secrets"], "provider": {"keyArn": "arn:aws:kms:x"}},
            "vpcConfig": {"endpointPublicAccess": False},
            "enabledClusterLogTypes": ["api", "audit", "authenticator"],
            "tags": _TAGS,
        },
    ),
    "firewall": (
        "aws:ec2/securityGroup:SecurityGroup",
        {
            "ingress": [{"fromPort": 6379.0, "toPort": 6379.0, "protocol": "tcp", "securityGroups": ["sg-1"]}],
            "description": "What reaches the broker",
            "tags": _TAGS,
        },
    ),
    "user": ("aws:elasticache/user:User", {"userName": "default", "accessString": "off -@all"}),
    "key": ("aws:kms/key:Key", {"enableKeyRotation": True, "tags": _TAGS}),
    "rights": (
        "aws:iam/rolePolicy:RolePolicy",
        {"role": "web", "policy": _policy(Action=["s3:GetObject"], Resource=["arn:aws:s3:::results/*"])},
    ),
}
#: A rule, the resource that breaks it, and the inputs that do.
AWS_DEFECTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("redis-broker-evicts", "parameters", {"parameters": [{"name": "maxmemory-policy", "value": "allkeys-lru"}]}),
    ("redis-broker-not-persistent", "redis", {"snapshotRetentionLimit": 0.0}),
    ("aws-redis-encryption", "redis", {"transitEncryptionEnabled": False}),
    ("aws-redis-encryption", "redis", {"atRestEncryptionEnabled": None}),
    ("aws-redis-encryption", "redis", {"authToken": None}),
    ("aws-redis-zones", "redis", {"numCacheClusters": 1.0}),
    ("aws-redis-zones", "redis", {"multiAzEnabled": False}),
    ("aws-redis-zones", "redis", {"automaticFailoverEnabled": None}),
    ("aws-redis-memory", "parameters", {"parameters": [{"name": "reserved-memory-percent", "value": "0"}]}),
    ("aws-redis-single-node", "single", {"engine": "redis", "clusterId": "single"}),
    ("aws-postgres-encryption", "postgres", {"storageEncrypted": None}),
    ("aws-postgres-zones", "postgres", {"multiAz": None}),
    ("aws-postgres-backups", "postgres", {"backupRetentionPeriod": 0.0}),
    ("aws-postgres-backups", "postgres", {"deletionProtection": None}),
    ("aws-postgres-backups", "postgres", {"skipFinalSnapshot": True}),
    ("aws-postgres-public", "postgres", {"publiclyAccessible": True}),
    ("aws-bucket-public", "block", {"blockPublicPolicy": False}),
    ("aws-bucket-public", "block", {"bucket": "another"}),
    ("aws-bucket-public", "bucket", {"acl": "public-read"}),
    ("aws-bucket-encryption", "encryption", {"bucket": "another"}),
    ("aws-bucket-lifecycle", "lifecycle", {"rules": [{"id": "off", "status": "Disabled", "expiration": {"days": 1.0}}]}),
    ("aws-eks-encryption", "cluster", {"encryptionConfig": None}),
    ("aws-eks-public", "cluster", {"vpcConfig": {"subnetIds": ["subnet-1"]}}),
    ("aws-eks-logs", "cluster", {"enabledClusterLogTypes": ["api"]}),
    ("aws-firewall-open", "firewall", {"ingress": [{"fromPort": 6379.0, "toPort": 6379.0, "cidrBlocks": ["0.0.0.0/0"]}]}),
    ("aws-redis-key", "redis", {"kmsKeyId": None}),
    ("aws-redis-default-user", "user", {"accessString": "on ~* +@all"}),
    ("aws-postgres-key", "postgres", {"kmsKeyId": None}),
    ("aws-postgres-key", "postgres", {"performanceInsightsKmsKeyId": None}),
    ("aws-key-rotation", "key", {"enableKeyRotation": False}),
    ("aws-bucket-key", "encryption", {"rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}}]}),
    ("aws-firewall-description", "firewall", {"description": "Managed by Pulumi"}),
    ("aws-iam-wildcard", "rights", {"policy": _policy(Action="s3:*", Resource="arn:aws:s3:::results/*")}),
    ("aws-iam-wildcard", "rights", {"policy": _policy(Action=["s3:GetObject"], Resource="*")}),
    ("aws-iam-wildcard", "rights", {"policy": _policy(NotAction=["iam:*"], Resource=["arn:aws:s3:::results"])}),
    ("aws-tags", "postgres", {"tags": {"Project": "superset-async"}}),
)


def aws(resource: str = "", inputs: dict[str, Any] | None = None) -> Graph:
    """The AWS resources as they should be, with some inputs of one of them replaced; numbers are as the engine sends them."""
    from policies.graph import normalise

    wanted = copy.deepcopy(AWS)
    if inputs is not None:
        kind, given = wanted.get(resource, ("aws:elasticache/cluster:Cluster", {}))
        wanted[resource] = kind, {**given, **inputs}
    return Graph(
        Resource(type=kind, name=name, urn=f"urn:pulumi:prod::superset-async::{kind}::{name}", inputs=normalise(given))
        for name, (kind, given) in wanted.items()
    )


def _python(old: str, new: str) -> Callable[[], Graph]:
    """The chart's manifests with a text of its superset_config.py replaced."""

    def make() -> Graph:
        graph = foreign("superset_chart")
        config = next(each for each in graph.resources if each.title == "Secret/superset-config")
        text = config.inputs["stringData"]["superset_config.py"]
        assert old in text
        config.inputs["stringData"]["superset_config.py"] = text.replace(old, new)
        return graph

    return make


def _without_configuration() -> Graph:
    graph = foreign("superset_chart")
    worker = next(each for each in graph.resources if each.title == "Deployment/superset-worker")
    worker.inputs["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = []
    return graph


def _with_output() -> Graph:
    graph = foreign("superset_chart")
    env = next(each for each in graph.resources if each.title == "Secret/superset-env")
    env.inputs["stringData"]["DB_PASS"] = "Wq8zTrk2-Wq8zTrk2"
    return Graph(graph.resources, {"login": "admin / Wq8zTrk2-Wq8zTrk2"})


#: Defects in what only a configuration file can get wrong: ours cannot, since one function writes both sides.
CONFIGURATION_DEFECTS: tuple[tuple[str, Callable[[], Graph]], ...] = (
    ("celery-redelivery", _python("result_backend =", "task_acks_late = True\n    result_backend =")),
    (
        "celery-writes-twice",
        _python("result_backend =", "task_acks_late = task_reject_on_worker_lost = True\n    result_backend ="),
    ),
    ("celery-visibility-places", _python("result_backend =", "visibility_timeout = 90000\n    result_backend =")),
    ("secrets-in-outputs", _with_output),
    ("celery-config-unseen", _without_configuration),
    ("celery-config-unreadable", _python("CELERY_CONFIG = CeleryConfig", "CELERY_CONFIG = (")),
    ("celery-results-expire", lambda: foreign("superset_chart")),
    ("redis-cache-prefix", lambda: foreign("superset_chart")),
    ("redis-cache-ttl", _python('"CACHE_DEFAULT_TIMEOUT": 300,', "")),
    ("celery-queue-unheard", _python("result_backend =", 'task_routes = {"sql_lab.*": {"queue": "slow"}}\n    task_queues = '
     '[{"name": "celery"}]\n    task_default_queue = "default"\n    result_backend =')),
)  # fmt: skip
