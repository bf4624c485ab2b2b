"""The recorded graph as calls of AWS's API, by botocore's own models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.components.aws import calls
from tests.components.aws.calls import MisfitError
from tests.components.aws.stacks import STACKS, of_kind, on_aws

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("stack", STACKS)
def test_every_resource_is_a_call_that_aws_takes(stack: str) -> None:
    made = 0
    for resource in on_aws(stack):
        if resource.type.rpartition(":")[2] in calls.NOT_MADE:
            continue
        calls.call_of(resource).parameters(resource)
        made += 1
    assert made > 60


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("ReplicationGroup", {"transitEncryptionMode": "requird"}),
        ("ReplicationGroup", {"numCacheClusters": "three"}),
        ("ReplicationGroup", {"clusterMod": "disabled"}),
        ("Instance", {"databaseInsightsMode": "advance"}),
        ("Instance", {"backupRetentionPeriod": "a week"}),
        ("Cluster", {"enabledClusterLogTypes": ["api", "audits"]}),
        ("Cluster", {"accessConfig": {"authenticationMode": "CONFIG"}}),
        ("LogGroup", {"name": ""}),
        ("VpcEndpoint", {"vpcEndpointType": "Gatway"}),
        ("FlowLog", {"trafficType": "EVERYTHING"}),
        ("BucketOwnershipControls", {"rule": {"objectOwnership": "Owner"}}),
        ("MetricAlarm", {"comparisonOperator": "GreaterThan"}),
        ("MetricAlarm", {"statistic": "P99"}),
        ("Repository", {"imageTagMutability": "FIXED"}),
        ("Addon", {"resolveConflictsOnCreate": "REPLACE"}),
    ],
    ids=str,
)
def test_a_typo_does_not_get_through(kind: str, changed: dict[str, Any]) -> None:
    """What is checked is checked: each of these would fail in the account."""
    resource = of_kind("aws-enterprise", kind)[0]
    call = calls.call_of(resource)
    call.parameters(resource)
    with pytest.raises(MisfitError):
        call.parameters(replace(resource, inputs={**resource.inputs, **changed}))
