"""Mistakes planted in the recorded graph of a shipped stack, each noticed by a test of `test_graph`.

They were written down by somebody who had not written those tests, of what a change of `components/aws` may do by oversight. A
policy or a scanner may notice some of them too; none of them has to.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infra.recording import Recording, Resource
from tests.components.aws import stacks, test_graph

pytestmark = pytest.mark.thorough

Change = Callable[[Resource], Resource]


def inputs(**changes: Any) -> Change:
    """Other inputs; None takes one away."""

    def change(resource: Resource) -> Resource:
        made = {**resource.inputs, **changes}
        return replace(resource, inputs={key: value for key, value in made.items() if value is not None})

    return change


def inside(*path: Any, value: Any) -> Change:
    """Another value at the end of a path."""

    def change(resource: Resource) -> Resource:
        made = copy.deepcopy(resource.inputs)
        target = made
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value
        return replace(resource, inputs=made)

    return change


def statement(key: str, edit: Callable[[dict[str, Any]], object]) -> Change:
    """Another last statement of a document."""

    def change(resource: Resource) -> Resource:
        document = json.loads(resource.inputs[key])
        edit(document["Statement"][-1])
        return replace(resource, inputs={**resource.inputs, key: json.dumps(document)})

    return change


def independent(resource: Resource) -> Resource:
    """It waits for nothing but its parent."""
    return replace(resource, dependencies=frozenset())


def unprotected(resource: Resource) -> Resource:
    return replace(resource, protect=False)


#: What it is; the stack, and the type and name of the resource; what becomes of it.
MISTAKES: tuple[tuple[str, str, str, str, Change], ...] = (
    (
        "a private subnet leaves by another zone's gateway",
        *("aws-enterprise", "RouteTableAssociation", "aws-enterprise-private-eu-central-1b"),
        inputs(routeTableId="RouteTable.aws-enterprise-private-eu-central-1a"),
    ),
    (
        "an endpoint that the service's own name does not lead to",
        *("aws-enterprise", "VpcEndpoint", "aws-enterprise-sts"),
        inputs(privateDnsEnabled=False),
    ),
    (
        "an endpoint without its firewall",
        *("aws-enterprise", "VpcEndpoint", "aws-enterprise-logs"),
        inputs(securityGroupIds=None),
    ),
    (
        "S3's gateway misses a zone",
        *("aws-enterprise", "VpcEndpoint", "aws-enterprise-s3"),
        inputs(routeTableIds=["RouteTable.aws-enterprise-private-eu-central-1a"]),
    ),
    (
        "any account may have the flow logs' role assumed",
        *("aws-enterprise", "Role", "aws-enterprise-flows"),
        statement("assumeRolePolicy", lambda each: each.pop("Condition")),
    ),
    (
        "CloudWatch Logs of any account may use the key",
        *("aws-enterprise", "Key", "logs"),
        statement("policy", lambda each: each.pop("Condition")),
    ),
    (
        "pods of any namespace have the role",
        *("aws-enterprise", "Role", "results-access"),
        statement(
            "assumeRolePolicy", lambda each: each["Condition"]["StringEquals"].pop("aws:RequestTag/kubernetes-namespace")
        ),
    ),
    (
        "pods reach the node's own credentials",
        *("aws-multi-tenant", "LaunchTemplate", "aws-multi-tenant-nodes"),
        inside("metadataOptions", "httpPutResponseHopLimit", value=2),
    ),
    (
        "the cluster's key encrypts nothing",
        *("aws-enterprise", "Cluster", "aws-enterprise"),
        inside("encryptionConfig", "resources", value=[]),
    ),
    (
        "the cluster can be deleted",
        *("aws-enterprise", "Cluster", "aws-enterprise"),
        inputs(deletionProtection=False),
    ),
    (
        "extended support is bought",
        *("aws-enterprise", "Cluster", "aws-enterprise"),
        inside("upgradePolicy", "supportType", value="EXTENDED"),
    ),
    ("nodes before the CNI", "aws-multi-tenant", "NodeGroup", "aws-multi-tenant-nodes", independent),
    ("DNS before nodes", "aws-multi-tenant", "Addon", "aws-multi-tenant-coredns", independent),
    (
        "network policies are stored and not enforced",
        *("aws-multi-tenant", "Addon", "aws-multi-tenant-vpc-cni"),
        inputs(configurationValues=None),
    ),
    ("RDS's own parameters", "aws-enterprise", "Instance", "postgres", inputs(parameterGroupName=None)),
    ("a change that restarts at once", "aws-enterprise", "Instance", "postgres", inputs(applyImmediately=True)),
    ("RDS makes log groups that keep for ever", "aws-enterprise", "Instance", "postgres", independent),
    (
        "the role that monitors may nothing",
        *("aws-enterprise", "RolePolicyAttachment", "postgres-monitoring-AmazonRDSEnhancedMonitoringRole"),
        inputs(role="results-access"),
    ),
    ("ElastiCache's own parameters", "aws-enterprise", "ReplicationGroup", "redis-broker", inputs(parameterGroupName=None)),
    (
        "a user is in no group",
        "aws-enterprise",
        "UserGroup",
        "redis-broker",
        inputs(userIds=["aws-enterprise-broker-broker"]),
    ),
    ("the broker goes without protection", "aws-enterprise", "ReplicationGroup", "redis-broker", unprotected),
    (
        "a lifecycle for keys that nothing has",
        *("aws-enterprise", "BucketLifecycleConfiguration", "results"),
        inside("rules", 0, "filter", "prefix", value="results/"),
    ),
    (
        "access lists are back",
        *("aws-enterprise", "BucketOwnershipControls", "results"),
        inside("rule", "objectOwnership", value="ObjectWriter"),
    ),
    (
        "storage in MiB, where CloudWatch counts bytes",
        *("aws-enterprise", "MetricAlarm", "aws-enterprise-metadata-storage"),
        inputs(threshold=5 * 1024),
    ),
    (
        "a topic to which no alarm may publish",
        *("aws-enterprise", "TopicPolicy", "alarms"),
        statement("policy", lambda each: each.update(Principal={"Service": "events.amazonaws.com"})),
    ),
    (
        "plain HTTP beside HTTPS",
        *("aws-enterprise", "Ingress", "web-route"),
        inside("metadata", "annotations", "alb.ingress.kubernetes.io/listen-ports", value='[{"HTTP": 80}, {"HTTPS": 443}]'),
    ),
    (
        "the init job's role is another service account's",
        *("aws-enterprise", "PodIdentityAssociation", "metadata-access-superset-init"),
        inputs(serviceAccount="init"),
    ),
)


def noticed(stack: str, planted: Recording, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tests of `test_graph` that fail on a graph."""
    known = stacks.recorded

    def recorded(name: str) -> Recording:
        return planted if name == stack else known(name)

    monkeypatch.setattr(stacks, "recorded", recorded)
    monkeypatch.setattr(test_graph, "recorded", recorded)
    found: list[str] = []
    for name, test in inspect.getmembers(test_graph, inspect.isfunction):
        if name.startswith("test_") and list(inspect.signature(test).parameters) == ["stack"]:
            try:
                test(stack)
            except (AssertionError, KeyError, ValueError):
                found.append(name)
    return found


@pytest.mark.parametrize(("stack", "kind", "name", "change"), [pytest.param(*each[1:], id=each[0]) for each in MISTAKES])
def test_each_mistake_is_noticed(stack: str, kind: str, name: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    known = stacks.recorded(stack)
    changed = tuple(
        change(each) if each.type.endswith(f":{kind}") and each.custom and each.name == name else each
        for each in known.resources
    )
    assert changed != tuple(known.resources), f"no {kind} {name}"
    assert noticed(stack, replace(known, resources=changed), monkeypatch)


def test_without_a_mistake_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for stack in stacks.SHIPPED:
        assert noticed(stack, stacks.recorded(stack), monkeypatch) == []
