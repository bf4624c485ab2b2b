"""What every AWS component shares: where it is, policy documents, keys of the stack's own, log groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_aws import cloudwatch, iam, kms

#: Days in which the deletion of a key, and so of all that it encrypts, can be taken back.
KEY_DELETION_DAYS = 30

Statement = Mapping[str, Any]


@dataclass(frozen=True)
class AwsScope:
    """Where a component's resources are: an account and a region of AWS's commercial partition; and whose they are."""

    stack: str
    account: str
    region: str

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a resource of this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    def managed_policy(self, name: str) -> str:
        """The ARN of a policy that AWS keeps, such as `AmazonEKSClusterPolicy` or `service-role/…`."""
        return f"arn:aws:iam::aws:policy/{name}"


def document(*statements: Statement) -> pulumi.Output[str]:
    """An IAM policy document of `statements`, whose values may be outputs."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions: Sequence[str], resources: Sequence[pulumi.Input[str]], **others: object) -> Statement:
    """A statement that allows `actions` on `resources`; `others` are further elements, such as Condition."""
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources), **others}


def service_role(
    name: str,
    service: str,
    description: str,
    opts: pulumi.ResourceOptions,
    *,
    managed_policies: Sequence[str] = (),
    tag_session: bool = False,
    condition: Mapping[str, Any] | None = None,
) -> iam.Role:
    """A role that `service` alone assumes, with the managed policies of these ARNs.

    `tag_session`: the service also sets tags of the session (EKS Auto Mode, Pod Identity). `condition` narrows who may have the
    service assume it.
    """
    trust: dict[str, object] = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": ["sts:AssumeRole", *(["sts:TagSession"] if tag_session else [])],
    }
    if condition:
        trust["Condition"] = condition
    role = iam.Role(name, assume_role_policy=document(trust), description=description, opts=opts)
    for policy in managed_policies:
        iam.RolePolicyAttachment(f"{name}-{policy.rpartition('/')[2]}", role=role.name, policy_arn=policy, opts=opts)
    return role


@dataclass(frozen=True)
class CustomerKeyArgs:
    """What a key is for, and which AWS services use it in their own name."""

    scope: AwsScope
    description: str
    #: Statements of the key's policy beside the one that leaves it to the account's IAM policies.
    statements: Sequence[Statement] = ()


class CustomerKey(pulumi.ComponentResource):
    """A symmetric KMS key of the stack's own, rotated each year, and its alias.

    It is protected: without it everything that it encrypted is lost.
    """

    #: ARN of the key.
    arn: pulumi.Output[str]

    def __init__(self, name: str, args: CustomerKeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/key:CustomerKey", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        root = f"arn:aws:iam::{args.scope.account}:root"
        key = kms.Key(
            name,
            description=f"{args.description} of {args.scope.stack}",
            enable_key_rotation=True,
            deletion_window_in_days=KEY_DELETION_DAYS,
            policy=document(
                # In a key's policy * is the key itself. Without this nobody could change the policy any more.
                {"Sid": "Account", **allow(["kms:*"], ["*"], Principal={"AWS": root})},
                *args.statements,
            ),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=True)),
        )
        kms.Alias(name, name=f"alias/{args.scope.stack}/{name}", target_key_id=key.key_id, opts=child)
        self.arn = key.arn
        self.register_outputs({"arn": self.arn})


def logs_may_use(scope: AwsScope) -> Statement:
    """For the policy of a key: CloudWatch Logs may encrypt log groups of this account with it."""
    return {
        "Sid": "Logs",
        **allow(
            ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"],
            ["*"],
            Principal={"Service": f"logs.{scope.region}.amazonaws.com"},
            Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": scope.arn("logs", "log-group:*")}},
        ),
    }


def alarms_may_use(scope: AwsScope) -> Statement:
    """For the policy of a key: alarms of this account may publish to topics that are encrypted with it."""
    return {
        "Sid": "Alarms",
        **allow(
            ["kms:Decrypt", "kms:GenerateDataKey"],
            ["*"],
            Principal={"Service": "cloudwatch.amazonaws.com"},
            Condition={"StringEquals": {"aws:SourceAccount": scope.account}},
        ),
    }


def log_group(
    name: str, path: str, days: int, key_arn: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> cloudwatch.LogGroup:
    """A log group at `path`, encrypted, whose events go after `days`."""
    return cloudwatch.LogGroup(name, name=path, retention_in_days=days, kms_key_id=key_arn, opts=opts)
