"""Values of the recorded resources against CloudFormation's schemas: enumerations, patterns and bounds that botocore leaves out.

cfn-lint carries the schemas as AWS publishes them, region by region. A property of a call that makes a resource has its namesake
in the schema of the resource's type; what the schema says of a plain value holds for ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from infra.recording import Resource
from tests.components.aws import calls
from tests.components.aws.stacks import STACKS, of_kind, on_aws, topology_of
from topology.aws import catalogue
from topology.platforms.aws import times

pytestmark = pytest.mark.thorough

Plain = str | int | bool
#: CloudFormation's types, by the ends of ours; those of one name in two services by their beginning too.
TYPES = {
    "Vpc": "AWS::EC2::VPC",
    "Subnet": "AWS::EC2::Subnet",
    "VpcEndpoint": "AWS::EC2::VPCEndpoint",
    "FlowLog": "AWS::EC2::FlowLog",
    "LaunchTemplate": "AWS::EC2::LaunchTemplate",
    "Key": "AWS::KMS::Key",
    "Alias": "AWS::KMS::Alias",
    "Role": "AWS::IAM::Role",
    "LogGroup": "AWS::Logs::LogGroup",
    "aws:elasticache/ParameterGroup": "AWS::ElastiCache::ParameterGroup",
    "aws:elasticache/SubnetGroup": "AWS::ElastiCache::SubnetGroup",
    "ReplicationGroup": "AWS::ElastiCache::ReplicationGroup",
    "User": "AWS::ElastiCache::User",
    "UserGroup": "AWS::ElastiCache::UserGroup",
    "aws:rds/ParameterGroup": "AWS::RDS::DBParameterGroup",
    "aws:rds/SubnetGroup": "AWS::RDS::DBSubnetGroup",
    "Instance": "AWS::RDS::DBInstance",
    "Bucket": "AWS::S3::Bucket",
    "Repository": "AWS::ECR::Repository",
    "Cluster": "AWS::EKS::Cluster",
    "NodeGroup": "AWS::EKS::Nodegroup",
    "Addon": "AWS::EKS::Addon",
    "PodIdentityAssociation": "AWS::EKS::PodIdentityAssociation",
    "AccessEntry": "AWS::EKS::AccessEntry",
    "MetricAlarm": "AWS::CloudWatch::Alarm",
    "Topic": "AWS::SNS::Topic",
    "TopicSubscription": "AWS::SNS::Subscription",
}
#: Inputs that the call that makes a resource does not have, and its schema has.
BESIDE = ("retentionInDays",)
#: What AWS makes is not known when a graph is recorded: ids, and ARNs of other resources.
STANDS_FOR = re.compile(r"replace-me|made-by-the-provider|^[A-Z][A-Za-z]+\.")


@cache
def schema(region: str, kind: str) -> Mapping[str, Any]:
    """CloudFormation's schema of a type in a region."""
    return PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, kind).schema


def type_of(resource: Resource) -> str | None:
    """CloudFormation's type, None for what is a part of another there, or has no values of its own."""
    service, kind = resource.type.partition("/")[0], resource.type.rpartition(":")[2]
    return TYPES.get(f"{service}/{kind}") or TYPES.get(kind)


def plain_values(
    value: Any, rule: Any, root: Mapping[str, Any], path: str
) -> Iterator[tuple[str, Plain, Mapping[str, Any]]]:
    """Each plain value in `value`, with what the schema says of it."""
    while isinstance(rule, Mapping) and "$ref" in rule:
        found: Any = root
        for step in str(rule["$ref"]).removeprefix("#/").split("/"):
            found = found[step]
        rule = found
    if not isinstance(rule, Mapping):
        return
    if isinstance(value, Mapping):
        names = {name.lower(): name for name in rule.get("properties", {})}
        for key, inner in value.items():
            name = names.get(str(key).lower())
            if name:
                yield from plain_values(inner, rule["properties"][name], root, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from plain_values(inner, rule.get("items"), root, f"{path}[]")
    elif isinstance(value, str | int) and not (isinstance(value, str) and STANDS_FOR.search(value)):
        yield path, value, rule


def misfit(value: Plain, rule: Mapping[str, Any]) -> str | None:
    """What of a schema's words `value` breaks."""
    said = str(value)
    if "enum" in rule and value not in rule["enum"] and said not in map(str, rule["enum"]):
        return f"is none of {rule['enum']}"
    if "pattern" in rule and not re.search(rule["pattern"], said):
        return f"does not match {rule['pattern']}"
    if "maxLength" in rule and len(said) > rule["maxLength"]:
        return f"has more than {rule['maxLength']} letters"
    if "minLength" in rule and len(said) < rule["minLength"]:
        return f"has fewer than {rule['minLength']} letters"
    if isinstance(value, int) and "minimum" in rule and value < rule["minimum"]:
        return f"is under {rule['minimum']}"
    if isinstance(value, int) and "maximum" in rule and value > rule["maximum"]:
        return f"is over {rule['maximum']}"
    return None


def looked_at(region: str, resource: Resource) -> Iterator[tuple[str, Plain, Mapping[str, Any]]]:
    """The plain values of a resource of which a schema says more than their type."""
    kind = type_of(resource)
    if kind is None:
        return
    root = schema(region, kind)
    values = calls.call_of(resource).parameters(resource)
    values |= {key: resource.inputs[key] for key in BESIDE if key in resource.inputs}
    for path, value, rule in plain_values(values, root, root, kind):
        if rule.keys() & {"enum", "pattern", "maxLength", "minLength", "minimum", "maximum"}:
            yield path, value, rule


#: Some of each service, so that a table that leads nowhere is noticed.
EXPECTED = {
    "AWS::CloudWatch::Alarm.TreatMissingData",
    "AWS::EC2::FlowLog.TrafficType",
    "AWS::EC2::LaunchTemplate.LaunchTemplateData.BlockDeviceMappings[].Ebs.VolumeType",
    "AWS::ECR::Repository.RepositoryName",
    "AWS::EKS::Cluster.UpgradePolicy.SupportType",
    "AWS::EKS::Nodegroup.AmiType",
    "AWS::ElastiCache::User.Engine",
    "AWS::ElastiCache::UserGroup.UserIds[]",
    "AWS::Logs::LogGroup.RetentionInDays",
    "AWS::RDS::DBInstance.DBInstanceIdentifier",
    "AWS::RDS::DBInstance.PerformanceInsightsRetentionPeriod",
}


def test_plain_values_are_what_the_schemas_of_the_stacks_region_take() -> None:
    found: set[str] = set()
    for stack in STACKS:
        region = topology_of(stack).on_aws().region
        for resource in on_aws(stack):
            for path, value, rule in looked_at(region, resource):
                assert misfit(value, rule) is None, f"{stack}: {resource.name}: {path} = {value!r} {misfit(value, rule)}"
                found.add(path)
    assert found >= EXPECTED


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("LogGroup", {"retentionInDays": 31}),
        ("LogGroup", {"name": "/aws/vpc/a stack"}),
        ("Instance", {"performanceInsightsRetentionPeriod": 30}),
        ("Instance", {"identifier": "metadata--1"}),
        ("Instance", {"username": "1superset"}),
        ("User", {"engine": "Valkey"}),
        ("UserGroup", {"userIds": ["1-broker"]}),
        ("Repository", {"name": "Superset"}),
        ("Cluster", {"version": "1.9"}),
        ("MetricAlarm", {"namespace": ":AWS"}),
    ],
    ids=str,
)
def test_a_value_that_a_schema_refuses_does_not_get_through(kind: str, changed: dict[str, Any]) -> None:
    """Botocore's models take each of these."""
    resource = replace(of_kind("aws-enterprise", kind)[0])
    wrong = replace(resource, inputs={**resource.inputs, **changed})
    found = [misfit(value, rule) for _, value, rule in looked_at("eu-central-1", wrong)]
    assert len([each for each in found if each]) == 1


def test_what_a_stack_may_say_is_what_the_schemas_list() -> None:
    """The plan refuses other numbers of days, so that its lists must be AWS's."""
    logs = schema("eu-central-1", "AWS::Logs::LogGroup")["properties"]["RetentionInDays"]["enum"]
    assert set(times.RETENTION_DAYS) == set(logs)
    insights = schema("eu-central-1", "AWS::RDS::DBInstance")["properties"]["PerformanceInsightsRetentionPeriod"]["enum"]
    assert {day for days in catalogue.INSIGHTS_DAYS.values() for day in days} == set(insights)
