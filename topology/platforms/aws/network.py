"""The VPC and the cluster in it: zones, addresses, ways out, nodes, who reaches the API server."""

from __future__ import annotations

from collections.abc import Iterator

from topology.aws import catalogue, subnets
from topology.model import Topology
from topology.platforms.aws.decisions import settings_of
from topology.problems import Problem
from topology.settings import Settings

#: Without a way to the Internet these must be in the VPC: images, credentials, logs, nodes that join, load balancers.
NEEDED_ENDPOINTS = ("ecr.api", "ecr.dkr", "sts", "logs", "eks-auth", "ec2", "eks", "elasticloadbalancing", "kms")

#: Of a zone's addresses pods may take so many in a hundred: nodes, load balancers and rolling updates need some too.
PODS_PERCENT = 50


def network_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Two zones or more of the region, addresses for every pod, and without a way out all that pods need of AWS."""
    given = settings_of(settings)
    network = given.network
    if network.existing:
        if len(network.existing.subnet_ids) < 2:
            yield Problem(
                "aws.network.existing.subnet_ids",
                str(len(network.existing.subnet_ids)),
                "must be two subnets or more, in different zones: RDS and EKS take no fewer",
                "Name a private subnet of each zone",
            )
        return
    for zone in network.zones:
        if not zone.startswith(given.region) or len(zone) != len(given.region) + 1 or not zone[-1].isalpha():
            yield Problem(
                "aws.network.zones",
                repr(zone),
                f"is no zone of region {given.region}",
                f"Write it as in {given.region}a",
                also=("aws.region",),
            )
    if len(network.zones) < 2:
        yield Problem(
            "aws.network.zones",
            str(len(network.zones)),
            "must be two or more: RDS and EKS take no fewer, and a broker in one zone is lost with it",
            "Name three",
        )
    try:
        divided = subnets.divide(network.cidr, network.zones)
    except ValueError as error:
        rule, _, fix = str(error).partition("|")
        key = "aws.network.zones" if "zone" in rule else "aws.network.cidr"
        yield Problem(key, str(network.cidr if key.endswith("cidr") else list(network.zones)), rule, fix)
    else:
        pods = most_pods(topology)
        room = sum(each.private_addresses for each in divided) * PODS_PERCENT // 100
        if pods > room:
            yield Problem(
                "aws.network.cidr",
                network.cidr,
                f"has room for {room} pods beside nodes and rolling updates, and there may be {pods}: each has an address",
                "Take a larger network, such as a /16",
                also=("workers", "pools", "tenants", "web"),
            )
    needed = [*NEEDED_ENDPOINTS, *(["secretsmanager"] if topology.postgres.password_secret_arn else [])]
    missing = [each for each in needed if each not in network.endpoints]
    if network.nat == "none" and missing:
        yield Problem(
            "aws.network.endpoints",
            ", ".join(network.endpoints) or "none",
            f"must have {', '.join(missing)}: without NAT nothing else leads to these services",
            "Add them, or set aws.network.nat to one or zone",
            also=("aws.network.nat",),
        )


def most_pods(topology: Topology) -> int:
    """The most pods that a stack may have at once: web, workers, beat, exporter, the init job; rolling updates add a quarter."""
    most = topology.web.max_replicas + sum(pool.max_workers for pool in topology.pools) + 3
    return -(-most * 5 // 4)


def cluster_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Nodes of one architecture, in a range; KEDA where pools are scaled by it."""
    cluster = settings_of(settings).cluster
    if cluster.existing:
        return
    if cluster.compute == "managed":
        if cluster.min_nodes > cluster.max_nodes:
            yield Problem(
                "aws.cluster.min_nodes",
                str(cluster.min_nodes),
                f"must be at most aws.cluster.max_nodes ({cluster.max_nodes})",
                "Lower it",
                also=("aws.cluster.max_nodes",),
            )
        if len({catalogue.architecture(each) for each in cluster.instance_types}) != 1:
            yield Problem(
                "aws.cluster.instance_types",
                ", ".join(cluster.instance_types) or "none",
                "must be types of one architecture: an image is built for one",
                "Name Graviton types (m7g) or others (m7i), not both",
            )
    if cluster.keda_manifest is None and any(pool.scaling and pool.scaling.kind == "keda" for pool in topology.pools):
        yield Problem(
            "aws.cluster.keda_manifest",
            "null",
            "must name KEDA's manifests: a new cluster has no KEDA, and workers.scaling.kind is keda",
            "Give a file, or the URL of a release's keda-<version>.yaml; or set workers.scaling to null",
            also=("workers.scaling", "pools"),
        )


def api_server_is_not_the_worlds(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Who reaches the API server from outside the VPC is somebody's network."""
    cluster = settings.aws.cluster if settings.aws else None
    if cluster and cluster.existing is None and "0.0.0.0/0" in cluster.public_cidrs:
        yield Problem(
            "aws.cluster.public_cidrs",
            "0.0.0.0/0",
            "lets the whole Internet try the API server",
            "Name the networks of those who administer it, or none and reach it inside the VPC",
        )
