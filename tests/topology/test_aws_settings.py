"""What is refused on platform aws, and of AWS elsewhere: each with the key that a person can change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from topology import presets, redis_acl
from topology.model import RedisRole
from topology.plan import plan
from topology.platforms.aws.decisions import bucket_name
from topology.problems import StackError

RIGHT: dict[str, Any] = {
    "topology": "enterprise",
    "platform": "aws",
    "workers": {"scaling": {"kind": "hpa", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300}},
    "aws": {"account": "123456789012", "repository": None},
}
TENANTS: dict[str, Any] = {f"t{number}": {"users": [f"u{number}"], "max_workers": 40} for number in range(20)}
CERTIFICATE = "arn:aws:acm:eu-west-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"
BALANCER = {"host": "s.example.com", "certificate_arn": CERTIFICATE, "scheme": "internal", "cidrs": ["10.0.0.0/8"]}


def problems(config: dict[str, Any], stack: str = "prod") -> set[str]:
    """Keys of every problem; none for a stack that is right."""
    try:
        plan(stack, config)
    except StackError as error:
        return {problem.key for problem in error.problems}
    return set()


@pytest.mark.parametrize("topology", presets.NAMES)
def test_every_topology_has_its_preset_on_aws(topology: str) -> None:
    assert problems(RIGHT | {"topology": topology}) == set()


def test_hosts_are_verified_and_results_are_in_the_bucket() -> None:
    found = plan("prod", RIGHT)
    assert all(instance.tls and instance.tls.ca_file is None for instance in found.redis)
    assert found.postgres.tls and found.postgres.tls.ca_file
    assert found.caching.bucket
    assert found.caching.bucket.name == bucket_name("prod", "123456789012")
    assert plan("prod", presets.merge(RIGHT, {"aws": {"results": "redis"}})).caching.bucket is None


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({"aws": {"account": None}}, {"aws.account"}),
        ({"aws": {"account": "12345"}}, {"aws.account"}),
        ({"aws": {"account": 123456789012}}, {"aws.account"}),
        ({"aws": {"region": "eu-centrl-1"}}, {"aws.region", "aws.network.zones"}),
        ({"aws": {"region": "eu-west-1"}}, {"aws.network.zones"}),
        ({"aws": {"network": {"zones": ["eu-central-1a"]}}}, {"aws.network.zones"}),
        ({"aws": {"network": {"zones": ["eu-central-1a", "eu-central-1a"]}}}, {"aws.network.zones"}),
        ({"aws": {"network": {"zones": []}}}, {"aws.network.zones"}),
        ({"aws": {"network": {"cidr": "10.0.0.0/24"}}}, {"aws.network.cidr"}),
        ({"aws": {"network": {"cidr": "8.8.0.0/16"}}}, {"aws.network.cidr"}),
        ({"aws": {"network": {"cidr": "10.0.0.0/23"}}, "workers": {"max_workers": 60}, "web": {"max_replicas": 30}}, None),
        ({"aws": {"network": {"nat": "none"}}}, {"aws.network.endpoints"}),
        ({"aws": {"network": {"nat": "two"}}}, {"aws.network.nat"}),
        ({"aws": {"network": {"endpoints": ["s4"]}}}, {"aws.network.endpoints.0"}),
        ({"aws": {"network": {"existing": {"vpc_id": "vpc-1", "subnet_ids": []}}}}, {"aws.network.existing.vpc_id"}),
        (
            {"aws": {"network": {"existing": {"vpc_id": "vpc-0123456789abcdef0", "subnet_ids": []}}}},
            {"aws.network.existing.subnet_ids"},
        ),
        ({"aws": {"cluster": {"version": "1.99"}}}, {"aws.cluster.version"}),
        ({"aws": {"cluster": {"compute": "fargate"}}}, {"aws.cluster.compute"}),
        ({"aws": {"cluster": {"administrators": ["platform"]}}}, {"aws.cluster.administrators.0"}),
        ({"aws": {"cluster": {"compute": "managed", "instance_types": ["m7g.lage"]}}}, {"aws.cluster.instance_types"}),
        (
            {"aws": {"cluster": {"compute": "managed", "instance_types": ["m7g.large", "m7i.large"]}}},
            {"aws.cluster.instance_types"},
        ),
        ({"aws": {"cluster": {"compute": "managed", "min_nodes": 20}}}, {"aws.cluster.min_nodes"}),
        (
            {"workers": {"scaling": {"kind": "keda", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300}}},
            {"aws.cluster.keda_manifest"},
        ),
        ({"aws": {"redis": {"engine_version": "7.9"}}}, {"aws.redis.engine_version"}),
        ({"aws": {"redis": {"broker": {"node_type": "cache.m7g.lrge"}}}}, {"aws.redis.broker.node_type"}),
        ({"aws": {"redis": {"broker": {"node_type": "cache.t4g.small"}}}}, {"redis.broker.maxmemory"}),
        ({"aws": {"redis": {"reserved_memory_percent": 5}}}, {"aws.redis.reserved_memory_percent"}),
        ({"aws": {"redis": {"broker": {"snapshot_days": 0}}}}, {"aws.redis.broker.snapshot_days"}),
        ({"aws": {"redis": {"snapshot_window": "25:00-26:00"}}}, {"aws.redis.snapshot_window"}),
        ({"aws": {"redis": {"maintenance_window": "sunday"}}}, {"aws.redis.maintenance_window"}),
        ({"redis": {"broker": {"persistence": "aof"}}}, {"redis.broker.persistence"}),
        ({"redis": {"broker": {"persistence": "none"}}}, {"redis.broker.persistence"}),
        ({"redis": {"broker": {"sentinel": True}}}, {"redis.broker.sentinel"}),
        ({"redis": {"broker": {"replicas": 6}}}, {"redis.broker.replicas"}),
        ({"redis": {"broker": {"maxmemory_policy": "allkeys-lru"}}}, {"redis.broker.maxmemory_policy"}),
        ({"redis": {"tls": {"kind": "generated"}}}, {"redis.tls"}),
        ({"postgres": {"kind": "statefulset"}}, {"postgres.kind"}),
        ({"postgres": {"volume_size": "5Gi"}}, {"postgres.volume_size"}),
        ({"aws": {"postgres": {"max_storage_gib": 20}}}, {"aws.postgres.max_storage_gib"}),
        ({"aws": {"postgres": {"instance_class": "db.m7g.lrge"}}}, {"aws.postgres.instance_class"}),
        ({"aws": {"postgres": {"instance_class": "db.t4g.medium"}}}, {"aws.postgres.instance_class"}),
        ({"aws": {"postgres": {"engine_version": "12.3"}}}, {"aws.postgres.engine_version"}),
        ({"aws": {"postgres": {"insights_days": 94}}}, {"aws.postgres.insights_days"}),
        ({"aws": {"postgres": {"backup_window": "04:30-05:30"}}}, {"aws.postgres.backup_window"}),
        ({"aws": {"postgres": {"backup_window": "23:50-23:59"}}}, {"aws.postgres.backup_window"}),
        ({"aws": {"postgres": {"maintenance_window": "sun:23:50-mon:00:10"}}}, {"aws.postgres.maintenance_window"}),
        ({"aws": {"redis": {"snapshot_window": "02:30-03:30"}}}, {"aws.redis.snapshot_window"}),
        ({"aws": {"redis": {"maintenance_window": "sun:03:00-sun:03:30"}}}, {"aws.redis.maintenance_window"}),
        ({"aws": {"network": {"flow_log_days": 42}}}, {"aws.network.flow_log_days"}),
        ({"aws": {"cluster": {"log_days": 100}}}, {"aws.cluster.log_days"}),
        ({"aws": {"cluster": {"public_cidrs": ["0.0.0.0/0"]}}}, {"aws.cluster.public_cidrs"}),
        ({"postgres": {"user": "rdsadmin"}}, {"postgres.user"}),
        ({"aws": {"postgres": {"insights_mode": "advanced"}}}, {"aws.postgres.insights_days"}),
        ({"aws": {"postgres": {"backup_days": 90}}}, {"aws.postgres.backup_days"}),
        ({"aws": {"results": "disk"}}, {"aws.results"}),
        ({"aws": {"repository": "superset-async"}}, {"images.superset"}),
        ({"aws": {"load_balancer": BALANCER}}, {"aws.load_balancer.certificate_arn"}),
        ({"aws": {"alarm_emails": ["ops"]}}, {"aws.alarm_emails.0"}),
        ({"aws": {"regoin": "x"}}, {"aws.regoin"}),
        ({"caching": {"bucket": {"name": "mine", "region": "eu-central-1"}}}, {"caching.bucket"}),
        ({"databases": {"x": {"sample": True}}}, {"databases.x.sample"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_is_refused(changed: dict[str, Any], keys: set[str] | None) -> None:
    found = problems(presets.merge(copy.deepcopy(RIGHT), changed))
    if keys is None:
        assert "aws.network.cidr" in found
    else:
        assert found == keys


@pytest.mark.parametrize("stack", ["a" * 50, "two--dashes", "Prod", "under_score"])
def test_a_stack_whose_name_aws_does_not_take(stack: str) -> None:
    assert problems(RIGHT, stack) == {"the stack's name"}


@pytest.mark.parametrize("platform", ["kubernetes", "local"])
def test_what_is_aws_own_is_refused_elsewhere(platform: str) -> None:
    section = presets.settings_of("enterprise", on_aws=True)["aws"]
    base: dict[str, Any] = {"topology": "enterprise", "platform": platform}
    assert "aws" in problems(base | {"aws": section})
    assert "postgres.kind" in problems(base | {"postgres": {"kind": "rds", "backup": None}})


def test_a_bucket_is_for_local_processes_alone() -> None:
    bucket = {"bucket": {"name": "results", "region": "eu-central-1", "endpoint": "http://127.0.0.1:9000"}}
    assert problems({"topology": "minimal", "platform": "local", "caching": bucket}) == set()
    assert problems({"topology": "minimal", "platform": "kubernetes", "caching": bucket}) == {"caching.bucket"}
    bad = {"bucket": {"name": "Results!", "region": "eu-central-1", "endpoint": "http://user:pw@s3"}}
    found = problems({"topology": "minimal", "platform": "local", "caching": bad})
    assert found == {"caching.bucket.name", "caching.bucket.endpoint"}


@pytest.mark.parametrize("topology", ["minimal", "enterprise"])
def test_access_strings_are_the_clusters_lists_without_name_and_password(topology: str) -> None:
    found = plan("prod", RIGHT | {"topology": topology})
    for instance in found.redis:
        passwords: dict[RedisRole, str] = {user.role: f"password-of-{user.role}" for user in instance.users}
        lines = redis_acl.server_acl(instance, passwords, "operator").splitlines()
        for user in instance.users:
            string = redis_acl.access_string(user)
            state, _, rights = string.partition(" ")
            assert f"user {user.username} {state} >{passwords[user.role]} {rights}" in lines
            # ElastiCache has passwords and their absence apart, and refuses them here.
            assert not any(word.startswith((">", "<", "#", "!")) or word in ("nopass", "reset") for word in string.split())
