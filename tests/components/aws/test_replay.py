"""The recorded graph made on moto's server, call by call in the order of its dependencies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from infra import aws_answers
from infra.recording import Resource
from tests.aws_services import aws_services
from tests.components.aws import calls
from tests.components.aws.stacks import on_aws, topology_of

pytestmark = pytest.mark.thorough

#: Where the answer has what other resources refer to: by the type of what was made.
IDS: dict[str, tuple[str, ...]] = {
    "Vpc": ("Vpc", "VpcId"),
    "Subnet": ("Subnet", "SubnetId"),
    "InternetGateway": ("InternetGateway", "InternetGatewayId"),
    "Eip": ("AllocationId",),
    "NatGateway": ("NatGateway", "NatGatewayId"),
    "RouteTable": ("RouteTable", "RouteTableId"),
    "SecurityGroup": ("GroupId",),
    "LaunchTemplate": ("LaunchTemplate", "LaunchTemplateId"),
    "Key": ("KeyMetadata", "Arn"),
    "Role": ("Role", "Arn"),
    "Topic": ("TopicArn",),
}
#: Calls that moto does not know: what they make is checked by botocore's models alone.
NOT_ANSWERED = frozenset(
    {
        "eks.AssociateAccessPolicy",
        "eks.CreateAccessEntry",
        "eks.CreateAddon",
        "eks.CreatePodIdentityAssociation",
        "elasticache.CreateCacheParameterGroup",
        "elasticache.CreateUserGroup",
    }
)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # A policy that AWS keeps is attached only where there is one of its name.
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    with aws_services() as url:
        yield url


class Replay:
    """Makes resources on a server, and knows what became of each recorded id and ARN."""

    def __init__(self, endpoint: str, region: str) -> None:
        self._endpoint, self._region = endpoint, region
        self._real: dict[str, str] = {}
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        if service not in self._clients:
            # The name of a service is data here, and the overloads are for names as they stand.
            make: Any = boto3.client
            self._clients[service] = make(
                service,
                endpoint_url=self._endpoint,
                region_name=self._region,
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
            )
        return self._clients[service]

    def make(self, resource: Resource) -> None:
        """Call what makes `resource`; ClientError where the server refuses it."""
        call, kind = calls.call_of(resource), resource.type.rpartition(":")[2]
        parameters = json.loads(self._resolved(json.dumps(call.parameters(resource))))
        parameters = _named(parameters, resource.name)
        if kind == "Bucket":
            parameters["CreateBucketConfiguration"] = {"LocationConstraint": self._region}
        method = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in call.operation).strip("_")
        method = method.replace("d_b_", "db_").replace("_d_b", "_db")
        answer = getattr(self.client(call.service), method)(**parameters)
        self._remember(resource, kind, answer)

    def _remember(self, resource: Resource, kind: str, answer: Any) -> None:
        real = answer
        for step in IDS.get(kind, ()):
            real = real[step]
        if isinstance(real, str):
            self._real[aws_answers.identity(resource.type, resource.name)] = real
        outputs = aws_answers.of(resource.type, resource.name, resource.inputs)
        match kind:
            case "Vpc":
                self._vpc = str(real)
            case "InternetGateway":
                self.client("ec2").attach_internet_gateway(InternetGatewayId=real, VpcId=self._vpc)
            case "Key":
                self._real[outputs["keyId"]] = self._real[outputs["arn"]] = str(real)
            case "Role" | "Topic":
                self._real[outputs["arn"]] = str(real)
            case "LogGroup":
                self._real[outputs["arn"]] = f"arn:aws:logs:{self._region}:123456789012:log-group:{resource.inputs['name']}"
            case "Bucket":
                self._real[outputs["arn"]] = f"arn:aws:s3:::{resource.inputs['bucket']}"
            case "Cluster":
                # The group of its nodes, which EKS makes itself.
                group = self.client("ec2").create_security_group(GroupName="cluster", Description="nodes", VpcId=self._vpc)
                self._real[outputs["vpcConfig"]["clusterSecurityGroupId"]] = group["GroupId"]
            case _:
                pass

    def _resolved(self, text: str) -> str:
        # The longest first: one id may begin like another.
        for recorded in sorted(self._real, key=len, reverse=True):
            text = text.replace(recorded, self._real[recorded])
        return text


def _named(value: Any, name: str) -> Any:
    """`value` with the resource's name where the provider would have made one."""
    if isinstance(value, dict):
        return {key: _named(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_named(inner, name) for inner in value]
    return name if value == "made-by-the-provider" else value


@pytest.mark.parametrize("stack", ["aws-enterprise", "aws-multi-tenant"])
def test_the_graph_can_be_made_in_its_order(stack: str, endpoint: str) -> None:
    """Whatever moto answers it takes; a reference to what is not made yet, or not at all, it refuses."""
    replay = Replay(endpoint, topology_of(stack).on_aws().region)
    not_answered: dict[str, str] = {}
    made = 0
    for resource in on_aws(stack):
        if resource.type.rpartition(":")[2] in calls.NOT_MADE:
            continue
        call = calls.call_of(resource)
        try:
            replay.make(resource)
        except (ClientError, ResponseParserError) as error:
            not_answered[f"{call.service}.{call.operation}"] = f"{resource.name}: {error}"
        else:
            made += 1
    assert set(not_answered) == NOT_ANSWERED, not_answered
    assert made > 100
