"""Whom pods reach of what is made on AWS: data stores in the VPC, whose firewalls open a port each to the cluster, and APIs."""

from __future__ import annotations

from collections.abc import Iterator

from topology.aws.model import Aws
from topology.model import Peer, Topology

#: Where pods get their AWS credentials: an agent on their node (EKS Pod Identity, IPv4).
POD_IDENTITY = ("169.254.170.23/32", 80)
_HTTPS = 443
_INTERNET = "0.0.0.0/0"


def peers(decided: Aws, topology: Topology) -> Iterator[Peer]:
    """In the order in which `aws` decides them."""
    vpc = (decided.network.cidr,)
    for instance in topology.redis:
        if not instance.existing:
            pods = ("superset", "exporter") if instance.carries_broker else ("superset",)
            yield Peer(key=f"ElastiCache {instance.name}", pods=pods, ports=(instance.port,), cidrs=vpc)
    if decided.postgres:
        yield Peer(key="RDS", pods=("superset",), ports=(topology.postgres.port,), cidrs=vpc)
    if decided.bucket:
        # Its addresses are public ones, and change; by its gateway endpoint none of this leaves AWS.
        yield Peer(key="S3", pods=("superset",), ports=(_HTTPS,), cidrs=(_INTERNET,))
    if topology.postgres.password_secret_arn:
        # In the VPC where there is an endpoint of it there; nobody knows of one in a network that exists already.
        inside = "secretsmanager" in decided.network.endpoints and decided.network.existing is None
        networks = vpc if inside else (*vpc, _INTERNET)
        yield Peer(key="Secrets Manager", pods=("superset",), ports=(_HTTPS,), cidrs=networks)
    if decided.bucket or topology.postgres.password_secret_arn:
        address, port = POD_IDENTITY
        yield Peer(key="EKS Pod Identity", pods=("superset",), ports=(port,), cidrs=(address,))
