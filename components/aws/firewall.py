"""Security groups of what listens: each opens one port, to the groups and networks that need it, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
from pulumi_aws import ec2, vpc


@dataclass(frozen=True)
class FirewallArgs:
    """Who may reach one port of what the group is put on."""

    vpc_id: pulumi.Input[str]
    #: What listens there, for descriptions.
    what: str
    port: int
    #: Security groups that may connect, by what they are of.
    groups: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    #: Networks that may connect, by what they are.
    networks: Mapping[str, str] = field(default_factory=dict[str, str])


class Firewall(pulumi.ComponentResource):
    """A security group with one rule a source, and none that lets out: what listens there opens no connections."""

    #: Id of the security group.
    group_id: pulumi.Output[str]

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/firewall:Firewall", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        group = ec2.SecurityGroup(
            name, vpc_id=args.vpc_id, description=f"What reaches {args.what}", tags={"Name": name}, opts=child
        )
        for source, group_id in args.groups.items():
            vpc.SecurityGroupIngressRule(
                f"{name}-from-{source}",
                security_group_id=group.id,
                description=f"{source} to {args.what}",
                ip_protocol="tcp",
                from_port=args.port,
                to_port=args.port,
                referenced_security_group_id=group_id,
                opts=child,
            )
        for source, cidr in args.networks.items():
            vpc.SecurityGroupIngressRule(
                f"{name}-from-{source}",
                security_group_id=group.id,
                description=f"{source} to {args.what}",
                ip_protocol="tcp",
                from_port=args.port,
                to_port=args.port,
                cidr_ipv4=cidr,
                opts=child,
            )
        self.group_id = group.id
        self.register_outputs({"group_id": self.group_id})
