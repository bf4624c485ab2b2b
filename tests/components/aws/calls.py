"""A recorded AWS resource as the call of AWS's API that makes it, with parameters as botocore's models have them.

Every input of a resource must find its place in the call, or stand in `ELSEWHERE` with what it is; every value of an enumeration
must be one of the enumeration's. `botocore.validate` says the rest: types, required members, lengths, patterns of bounds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from botocore.validate import ParamValidator

from infra.recording import Resource

Inputs = Mapping[str, Any]
Change = Callable[[dict[str, Any]], dict[str, Any]]


@cache
def operation(service: str, name: str) -> OperationModel:
    """The model of an operation."""
    return botocore.session.get_session().get_service_model(service).operation_model(name)


class MisfitError(AssertionError):
    """An input that has no place in the call, or a value that is none of its enumeration."""


def fitted(shape: Shape | None, value: Any, path: str) -> Any:
    """`value`, spelled as the provider has it, as `shape` has it."""
    if value is None:
        return None
    if isinstance(shape, StructureShape):
        if not isinstance(value, Mapping):
            raise MisfitError(f"{path} = {value!r} is no structure")
        members = {name.lower(): name for name in shape.members}
        made: dict[str, Any] = {}
        for key, inner in value.items():
            if key.lower() not in members:
                raise MisfitError(f"{path}.{key} has no place in {shape.name}: {sorted(shape.members)}")
            name = members[key.lower()]
            made[name] = fitted(shape.members[name], inner, f"{path}.{name}")
        return made
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            raise MisfitError(f"{path} = {value!r} is no list")
        return [fitted(shape.member, each, f"{path}[]") for each in value]
    if isinstance(shape, MapShape):
        return {key: fitted(shape.value, inner, f"{path}.{key}") for key, inner in value.items()}
    if shape is not None and shape.type_name == "boolean" and value in ("true", "false"):
        return value == "true"
    if shape is not None and shape.type_name in ("integer", "long") and isinstance(value, str) and value.isdecimal():
        return int(value)
    enumeration = getattr(shape, "enum", None)
    if enumeration and value not in enumeration:
        raise MisfitError(f"{path} = {value!r} is none of {enumeration}")
    return value


@dataclass(frozen=True)
class Call:
    """How resources of one type are made: an operation; inputs under other names; inputs that other calls take."""

    service: str
    operation: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    #: Inputs that are no parameter of this call, and what they are instead.
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    change: Change = dict

    def parameters(self, resource: Resource) -> dict[str, Any]:
        """The parameters of the call; MisfitError, or ParamValidationError's text in one."""
        inputs = {key: value for key, value in resource.inputs.items() if value is not None and key not in self.elsewhere}
        # The provider makes a name where the program leaves it open.
        inputs = self.change({self.renamed.get(key, key): value for key, value in inputs.items()})
        model = operation(self.service, self.operation)
        made = fitted(model.input_shape, inputs, f"{resource.type.rpartition(':')[2]} {resource.name}")
        report = ParamValidator().validate(made, model.input_shape)
        if report.has_errors():
            raise MisfitError(f"{resource.type} {resource.name}: {report.generate_report()}")
        return made


def tag_list(inputs: dict[str, Any], key: str = "tags") -> dict[str, Any]:
    """Tags as a list of keys and values."""
    tags = inputs.pop(key, None)
    return inputs | ({"Tags": [{"Key": name, "Value": value} for name, value in tags.items()]} if tags else {})


def _named(default: str) -> Change:
    return lambda inputs: tag_list({default: inputs.pop("name", "made-by-the-provider"), **inputs})


def _ec2(**renamed: str) -> Change:
    def change(inputs: dict[str, Any]) -> dict[str, Any]:
        inputs.pop("tags", None)
        return {renamed.get(key, key): value for key, value in inputs.items()}

    return change


def _bucket(key: str, inner: Change = dict) -> Change:
    return lambda inputs: {"Bucket": inputs.pop("bucket"), key: inner(inputs)}


def _lifecycle(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


def _eks(inputs: dict[str, Any]) -> dict[str, Any]:
    inputs["resourcesVpcConfig"] = inputs.pop("vpcConfig")
    encryption = inputs.pop("encryptionConfig")
    inputs["encryptionConfig"] = [encryption]
    types = inputs.pop("enabledClusterLogTypes")
    inputs["logging"] = {"clusterLogging": [{"types": types, "enabled": True}]}
    return inputs


def _instance(inputs: dict[str, Any]) -> dict[str, Any]:
    return tag_list(inputs)


def _user(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


def _rule(inputs: dict[str, Any]) -> dict[str, Any]:
    source = {"Description": inputs["description"]}
    permission: dict[str, Any] = {key: inputs[key] for key in ("ipProtocol", "fromPort", "toPort")}
    if "referencedSecurityGroupId" in inputs:
        permission["UserIdGroupPairs"] = [source | {"GroupId": inputs["referencedSecurityGroupId"]}]
    else:
        permission["IpRanges"] = [source | {"CidrIp": inputs["cidrIpv4"]}]
    return {"GroupId": inputs["securityGroupId"], "IpPermissions": [permission]}


def _flow_log(inputs: dict[str, Any]) -> dict[str, Any]:
    inputs.pop("tags")
    return {
        "ResourceIds": [inputs.pop("vpcId")],
        "ResourceType": "VPC",
        "DeliverLogsPermissionArn": inputs.pop("iamRoleArn"),
        "LogGroupName": inputs.pop("logDestination").rpartition("log-group:")[2] or "flows",
        **inputs,
    }


def _template(inputs: dict[str, Any]) -> dict[str, Any]:
    inputs.pop("tags")
    inputs["tagSpecifications"] = [tag_list(dict(each)) for each in inputs["tagSpecifications"]]
    return {"LaunchTemplateName": "made-by-the-provider", "LaunchTemplateData": inputs}


def _alarm(inputs: dict[str, Any]) -> dict[str, Any]:
    inputs["alarmName"] = inputs.pop("name")
    inputs["dimensions"] = [{"Name": name, "Value": value} for name, value in inputs["dimensions"].items()]
    return {("OKActions" if key == "okActions" else key): value for key, value in inputs.items()}


def _topic(inputs: dict[str, Any]) -> dict[str, Any]:
    return tag_list(
        {"Name": "made-by-the-provider", "Attributes": {"KmsMasterKeyId": inputs.pop("kmsMasterKeyId")}, **inputs}
    )


def _key(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


def _repository(inputs: dict[str, Any]) -> dict[str, Any]:
    inputs["repositoryName"] = inputs.pop("name")
    (inputs["encryptionConfiguration"],) = inputs.pop("encryptionConfigurations")
    return tag_list(inputs)


_NO_TAGS = {"tags": "tags of the VPC's parts are a call of their own"}
_STATE = {
    "forceDestroy": "the provider's own",
    "skipFinalSnapshot": "the deletion's",
    "finalSnapshotIdentifier": "the deletion's",
}
#: By the end of a type's token.
CALLS: dict[str, Call] = {
    "Vpc": Call(
        "ec2",
        "CreateVpc",
        elsewhere={"enableDnsSupport": "ModifyVpcAttribute", "enableDnsHostnames": "ModifyVpcAttribute"},
        change=_ec2(),
    ),
    "Subnet": Call("ec2", "CreateSubnet", elsewhere={"mapPublicIpOnLaunch": "ModifySubnetAttribute"}, change=_ec2()),
    "InternetGateway": Call("ec2", "CreateInternetGateway", elsewhere={"vpcId": "AttachInternetGateway"}, change=_ec2()),
    "Eip": Call("ec2", "AllocateAddress", change=_ec2()),
    "NatGateway": Call("ec2", "CreateNatGateway", change=_ec2()),
    "RouteTable": Call("ec2", "CreateRouteTable", change=_ec2()),
    "Route": Call("ec2", "CreateRoute", change=_ec2()),
    "RouteTableAssociation": Call("ec2", "AssociateRouteTable", change=_ec2()),
    "VpcEndpoint": Call("ec2", "CreateVpcEndpoint", change=_ec2()),
    "FlowLog": Call(
        "ec2", "CreateFlowLogs", change=_flow_log, elsewhere={"logDestinationType": "the same as a group's name"}
    ),
    "SecurityGroup": Call(
        "ec2",
        "CreateSecurityGroup",
        change=lambda inputs: {"GroupName": "made-by-the-provider", **_ec2()(inputs)},
    ),
    "SecurityGroupIngressRule": Call("ec2", "AuthorizeSecurityGroupIngress", change=_rule),
    "LaunchTemplate": Call(
        "ec2", "CreateLaunchTemplate", change=_template, elsewhere={"updateDefaultVersion": "ModifyLaunchTemplate"}
    ),
    "Key": Call(
        "kms",
        "CreateKey",
        elsewhere={"enableKeyRotation": "EnableKeyRotation", "deletionWindowInDays": "ScheduleKeyDeletion"},
    ),
    "Alias": Call("kms", "CreateAlias", renamed={"name": "aliasName"}),
    "Role": Call(
        "iam",
        "CreateRole",
        renamed={"assumeRolePolicy": "assumeRolePolicyDocument"},
        change=_named("roleName"),
        elsewhere={"forceDetachPolicies": "the deletion's", "maxSessionDuration": "the default"},
    ),
    "RolePolicy": Call(
        "iam", "PutRolePolicy", renamed={"role": "roleName", "policy": "policyDocument"}, change=_named("policyName")
    ),
    "RolePolicyAttachment": Call("iam", "AttachRolePolicy", renamed={"role": "roleName"}),
    "LogGroup": Call(
        "logs", "CreateLogGroup", renamed={"name": "logGroupName"}, elsewhere={"retentionInDays": "PutRetentionPolicy"}
    ),
    "ParameterGroup": Call("elasticache", "CreateCacheParameterGroup"),
    "ReplicationGroup": Call(
        "elasticache",
        "CreateReplicationGroup",
        renamed={
            "description": "replicationGroupDescription",
            "nodeType": "cacheNodeType",
            "parameterGroupName": "cacheParameterGroupName",
            "subnetGroupName": "cacheSubnetGroupName",
            "maintenanceWindow": "preferredMaintenanceWindow",
        },
        elsewhere={"applyImmediately": "ModifyReplicationGroup", **_STATE},
        change=lambda inputs: tag_list(
            inputs
            | {
                "LogDeliveryConfigurations": [
                    {
                        "LogType": each["logType"],
                        "LogFormat": each["logFormat"],
                        "DestinationType": each["destinationType"],
                        "DestinationDetails": {"CloudWatchLogsDetails": {"LogGroup": each["destination"]}},
                    }
                    for each in inputs.pop("logDeliveryConfigurations")
                ]
            }
        ),
    ),
    "User": Call("elasticache", "CreateUser"),
    "UserGroup": Call("elasticache", "CreateUserGroup"),
    "Instance": Call(
        "rds",
        "CreateDBInstance",
        renamed={
            "identifier": "dbInstanceIdentifier",
            "instanceClass": "dbInstanceClass",
            "username": "masterUsername",
            "password": "masterUserPassword",
            "parameterGroupName": "dbParameterGroupName",
            "caCertIdentifier": "caCertificateIdentifier",
            "backupWindow": "preferredBackupWindow",
            "maintenanceWindow": "preferredMaintenanceWindow",
            "enabledCloudwatchLogsExports": "enableCloudwatchLogsExports",
            "performanceInsightsEnabled": "enablePerformanceInsights",
        },
        elsewhere={
            "applyImmediately": "ModifyDBInstance",
            "allowMajorVersionUpgrade": "ModifyDBInstance",
            "deleteAutomatedBackups": "the deletion's",
            **_STATE,
        },
        change=_instance,
    ),
    "Bucket": Call("s3", "CreateBucket", elsewhere={"tags": "PutBucketTagging", **_STATE}),
    "BucketPublicAccessBlock": Call("s3", "PutPublicAccessBlock", change=_bucket("PublicAccessBlockConfiguration")),
    "BucketOwnershipControls": Call(
        "s3", "PutBucketOwnershipControls", change=_bucket("OwnershipControls", lambda inputs: {"Rules": [inputs["rule"]]})
    ),
    "BucketServerSideEncryptionConfiguration": Call(
        "s3",
        "PutBucketEncryption",
        change=_bucket(
            "ServerSideEncryptionConfiguration",
            lambda inputs: {
                "Rules": [
                    {
                        "ApplyServerSideEncryptionByDefault": {
                            ("KMSMasterKeyID" if key == "kmsMasterKeyId" else key): value
                            for key, value in rule["applyServerSideEncryptionByDefault"].items()
                        },
                        "BucketKeyEnabled": rule["bucketKeyEnabled"],
                    }
                    for rule in inputs["rules"]
                ]
            },
        ),
    ),
    "BucketLifecycleConfiguration": Call(
        "s3", "PutBucketLifecycleConfiguration", change=_bucket("LifecycleConfiguration", _lifecycle)
    ),
    "BucketPolicy": Call("s3", "PutBucketPolicy"),
    "Repository": Call("ecr", "CreateRepository", change=_repository, elsewhere={"forceDelete": "the deletion's"}),
    "LifecyclePolicy": Call(
        "ecr", "PutLifecyclePolicy", renamed={"repository": "repositoryName", "policy": "lifecyclePolicyText"}
    ),
    "Cluster": Call("eks", "CreateCluster", change=_eks),
    "NodeGroup": Call(
        "eks",
        "CreateNodegroup",
        renamed={"subnetIds": "subnets", "nodeRoleArn": "nodeRole"},
        change=lambda inputs: {"nodegroupName": "made-by-the-provider", **inputs},
    ),
    "Addon": Call(
        "eks",
        "CreateAddon",
        renamed={"resolveConflictsOnCreate": "resolveConflicts"},
        elsewhere={"resolveConflictsOnUpdate": "UpdateAddon"},
    ),
    "PodIdentityAssociation": Call("eks", "CreatePodIdentityAssociation"),
    "AccessEntry": Call("eks", "CreateAccessEntry"),
    "AccessPolicyAssociation": Call("eks", "AssociateAccessPolicy"),
    "MetricAlarm": Call("cloudwatch", "PutMetricAlarm", change=_alarm),
    "Topic": Call("sns", "CreateTopic", change=_topic),
    "TopicPolicy": Call(
        "sns",
        "SetTopicAttributes",
        renamed={"arn": "topicArn"},
        change=lambda inputs: {
            "TopicArn": inputs["topicArn"],
            "AttributeName": "Policy",
            "AttributeValue": inputs["policy"],
        },
    ),
    "TopicSubscription": Call(
        "sns",
        "Subscribe",
        renamed={"topic": "topicArn"},
        elsewhere={"confirmationTimeoutInMinutes": "the provider's own", "endpointAutoConfirms": "the provider's own"},
    ),
}
#: Types of which two services have one each.
_RDS = {
    "ParameterGroup": Call(
        "rds",
        "CreateDBParameterGroup",
        renamed={"family": "dbParameterGroupFamily"},
        change=_named("dbParameterGroupName"),
        elsewhere={"parameters": "ModifyDBParameterGroup"},
    ),
    "SubnetGroup": Call(
        "rds", "CreateDBSubnetGroup", renamed={"description": "dbSubnetGroupDescription"}, change=_named("dbSubnetGroupName")
    ),
}
_ELASTICACHE = {
    "ParameterGroup": Call(
        "elasticache",
        "CreateCacheParameterGroup",
        renamed={"family": "cacheParameterGroupFamily"},
        change=_named("cacheParameterGroupName"),
        elsewhere={"parameters": "ModifyCacheParameterGroup"},
    ),
    "SubnetGroup": Call(
        "elasticache",
        "CreateCacheSubnetGroup",
        renamed={"description": "cacheSubnetGroupDescription"},
        change=_named("cacheSubnetGroupName"),
    ),
}
#: The VPC's own group, which no call makes: the provider takes its rules away.
NOT_MADE = frozenset({"DefaultSecurityGroup"})


def call_of(resource: Resource) -> Call:
    """The call that makes `resource`; KeyError for a type that has none here."""
    kind = resource.type.rpartition(":")[2]
    own = {"aws:rds": _RDS, "aws:elasticache": _ELASTICACHE}.get(resource.type.partition("/")[0], {})
    return own.get(kind) or CALLS[kind]


def documents(resource: Resource) -> list[dict[str, Any]]:
    """The policy documents of a resource."""
    return [
        json.loads(resource.inputs[key])
        for key in ("policy", "assumeRolePolicy")
        if isinstance(resource.inputs.get(key), str) and "Statement" in resource.inputs[key]
    ]
