"""The stacks on AWS that the tests look at: those of the stack files, and some that say everything else."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from infra import recording
from infra.recording import Recording, Resource
from topology import plan, stack_file
from topology.model import Topology

#: A small VPC without a way out, results in Redis, nothing of the registry's; existing network and cluster with their controller.
_ACCOUNT: dict[str, Any] = {"account": "123456789012", "repository": None}
OTHERS: dict[str, dict[str, Any]] = {
    "aws-small": {
        "topology": "minimal",
        "platform": "aws",
        "aws": {
            **_ACCOUNT,
            "network": {
                "nat": "none",
                "cidr": "10.9.0.0/21",
                "endpoints": [
                    *("ecr.api", "ecr.dkr", "sts", "logs", "eks-auth", "ec2", "eks", "elasticloadbalancing", "kms"),
                    "secretsmanager",
                ],
            },
            "cluster": {"public_cidrs": ["203.0.113.0/24"]},
            "results": "redis",
        },
    },
    "aws-existing": {
        "topology": "enterprise",
        "platform": "aws",
        "aws": {
            **_ACCOUNT,
            "network": {
                "cidr": "10.20.0.0/16",
                "existing": {
                    "vpc_id": "vpc-0123456789abcdef0",
                    "subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
                },
            },
            "cluster": {"existing": {"name": "shared", "security_group_id": "sg-0123456789abcdef0"}},
            "load_balancer": {
                "host": "superset.example.com",
                "certificate_arn": "arn:aws:acm:eu-central-1:123456789012:certificate/11111111-2222-3333-4444-555555555555",
                "scheme": "internet-facing",
                "cidrs": ["203.0.113.0/24"],
            },
        },
    },
}
SHIPPED = ("aws-enterprise", "aws-multi-tenant")
STACKS = (*SHIPPED, *OTHERS)


def config_of(stack: str) -> dict[str, Any]:
    """The keys of a stack: of its file, or of `OTHERS`."""
    return copy.deepcopy(OTHERS[stack]) if stack in OTHERS else stack_file.read(stack)


@cache
def recorded(stack: str) -> Recording:
    """What the program registers for a stack, with placeholders for secrets."""
    return recording.record(stack, config_of(stack))


@cache
def topology_of(stack: str) -> Topology:
    """The topology of a stack."""
    return plan.plan(stack, config_of(stack))


def on_aws(stack: str) -> list[Resource]:
    """The AWS resources of a stack, in the order in which they are made."""
    return [each for each in recorded(stack).resources if each.custom and each.type.startswith("aws:")]


def of_kind(stack: str, kind: str) -> list[Resource]:
    """Those of one type, such as `Bucket`."""
    return [each for each in on_aws(stack) if each.type.rpartition(":")[2] == kind]
