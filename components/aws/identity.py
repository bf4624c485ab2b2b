"""What pods may do in AWS: a role for each service account that needs one, by EKS Pod Identity, without any key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import eks, iam

from components.aws.common import AwsScope, Statement, document, service_role


@dataclass(frozen=True)
class PodIdentityArgs:
    """Which pods, and what they may do."""

    scope: AwsScope
    cluster: pulumi.Input[str]
    namespace: str
    #: Service accounts of the namespace, all of which get the role.
    service_accounts: Sequence[str]
    #: What they are, for the role's description.
    description: str
    statements: Sequence[Statement]


class PodIdentity(pulumi.ComponentResource):
    """A role with one policy, which pods of the service accounts assume through the agent of their node, and nobody else."""

    #: ARN of the role.
    role_arn: pulumi.Output[str]

    def __init__(self, name: str, args: PodIdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/identity:PodIdentity", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        role = service_role(
            name,
            "pods.eks.amazonaws.com",
            args.description,
            child,
            tag_session=True,
            # No pod of another cluster, or of another namespace that was given the role by mistake.
            condition={
                "StringEquals": {
                    "aws:SourceAccount": args.scope.account,
                    "aws:RequestTag/kubernetes-namespace": args.namespace,
                },
                "ArnEquals": {"aws:SourceArn": pulumi.Output.concat(args.scope.arn("eks", "cluster/"), args.cluster)},
            },
        )
        iam.RolePolicy(name, role=role.name, policy=document(*args.statements), opts=child)
        for account in args.service_accounts:
            eks.PodIdentityAssociation(
                f"{name}-{account}",
                cluster_name=args.cluster,
                namespace=args.namespace,
                service_account=account,
                role_arn=role.arn,
                opts=child,
            )
        self.role_arn = role.arn
        self.register_outputs({"role_arn": self.role_arn})
