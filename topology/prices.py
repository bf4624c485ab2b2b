"""What a stack on AWS costs in a month, by a table of list prices of one day.

The prices are paper: those of us-east-1, on demand, as AWS's price pages had them by the day `AS_OF` says, taken down by hand and
never compared with a bill. Other regions cost up to a third more. What depends on use alone (traffic, requests, logs, storage of
results) is left out, and `NOT_COUNTED` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from topology.aws.catalogue import CLASS_CPUS
from topology.aws.model import Aws
from topology.model import Topology

AS_OF: Final = "2025-11-30"
CURRENCY: Final = "USD"
HOURS: Final = 730
#: An hour of a node of Valkey.
NODE_HOUR: Final = {
    "cache.t4g.micro": 0.0128,
    "cache.t4g.small": 0.0256,
    "cache.t4g.medium": 0.052,
    "cache.m6g.large": 0.1192,
    "cache.m6g.xlarge": 0.2376,
    "cache.m6g.2xlarge": 0.4744,
    "cache.r6g.large": 0.1648,
    "cache.r6g.xlarge": 0.3288,
    "cache.m7g.large": 0.1264,
    "cache.m7g.xlarge": 0.252,
    "cache.m7g.2xlarge": 0.5032,
    "cache.r7g.large": 0.1752,
    "cache.r7g.xlarge": 0.3496,
    "cache.r7g.2xlarge": 0.6984,
}
#: An hour of an instance of PostgreSQL in one zone; with a standby it is twice that.
INSTANCE_HOUR: Final = {
    "db.t4g.medium": 0.065,
    "db.t4g.large": 0.129,
    "db.m6g.large": 0.159,
    "db.m6g.xlarge": 0.318,
    "db.r6g.large": 0.225,
    "db.m7g.large": 0.168,
    "db.m7g.xlarge": 0.337,
    "db.m7g.2xlarge": 0.674,
    "db.r7g.large": 0.239,
    "db.r7g.xlarge": 0.478,
}
#: An hour of a node of EKS.
NODE_OF_CLUSTER_HOUR: Final = {
    "m7g.large": 0.0816,
    "m7g.xlarge": 0.1632,
    "m7g.2xlarge": 0.3264,
    "m7i.large": 0.1008,
    "m7i.xlarge": 0.2016,
    "m7i.2xlarge": 0.4032,
    "r7g.large": 0.1071,
    "r7g.xlarge": 0.2142,
}
#: A GiB of gp3 of RDS in one zone, for a month; a vCPU of Database Insights' advanced mode for an hour.
RDS_GIB, INSIGHTS_VCPU_HOUR = 0.115, 0.0125
CLUSTER_HOUR, NAT_HOUR, ENDPOINT_HOUR, ADDRESS_HOUR, BALANCER_HOUR = 0.10, 0.045, 0.01, 0.005, 0.0225
KEY_MONTH, ALARM_MONTH = 1.0, 0.10
#: What Auto Mode takes beside the node's own price, and the type of node that it is reckoned with here.
AUTO_SHARE, AUTO_TYPE = 0.12, "m7i.xlarge"
#: CPUs, in thousandths, that a node of four leaves for pods.
NODE_MILLIS: Final = 3900
NOT_COUNTED: Final = (
    "traffic between zones, through NAT and out of AWS; requests and storage of S3; logs; images; "
    "backups beyond the database's size"
)


@dataclass(frozen=True)
class Line:
    """One part of the estimate: how many of what, and what it costs in a month at rest and under full load."""

    what: str
    count: str
    at_rest: float
    under_load: float


def estimate(topology: Topology, *, keys: int, alarms: int) -> list[Line]:
    """The lines of a stack's estimate; `keys` and `alarms` are how many of them the stack makes. ValueError off AWS."""
    planned = topology.on_aws()
    lines = [*_redis(planned), *_postgres(planned), *_cluster(topology, planned), *_network(planned)]
    if planned.load_balancer:
        lines.append(_steady("load balancer, without what passes it", 1, BALANCER_HOUR))
    lines.append(Line("KMS keys", str(keys), keys * KEY_MONTH, keys * KEY_MONTH))
    lines.append(Line("alarms", str(alarms), alarms * ALARM_MONTH, alarms * ALARM_MONTH))
    return lines


def _steady(what: str, count: int, hour: float) -> Line:
    cost = count * hour * HOURS
    return Line(what, str(count), cost, cost)


def _redis(planned: Aws) -> list[Line]:
    return [
        _steady(f"{group.instance}: {group.node_type}", group.nodes, NODE_HOUR[group.node_type]) for group in planned.redis
    ]


def _postgres(planned: Aws) -> list[Line]:
    wanted = planned.postgres
    if wanted is None:
        return []
    zones = 2 if wanted.multi_az else 1
    first, most = (gib * RDS_GIB * zones for gib in (wanted.storage_gib, wanted.max_storage_gib))
    lines = [
        _steady(f"metadata database: {wanted.instance_class}", zones, INSTANCE_HOUR[wanted.instance_class]),
        Line("its storage", f"{wanted.storage_gib}..{wanted.max_storage_gib} GiB in {zones} zones", first, most),
    ]
    if wanted.insights_mode == "advanced":
        lines.append(_steady("Database Insights, advanced: vCPUs", CLASS_CPUS[wanted.instance_class], INSIGHTS_VCPU_HOUR))
    return lines


def _cluster(topology: Topology, planned: Aws) -> list[Line]:
    wanted = planned.cluster
    if wanted.existing:
        return []
    if wanted.compute == "managed":
        kind, share, least, most = wanted.instance_types[0], 0.0, wanted.min_nodes, wanted.max_nodes
    else:
        kind, share = AUTO_TYPE, AUTO_SHARE
        least, most = (nodes_for(millis) for millis in requested_millis(topology))
    hour = NODE_OF_CLUSTER_HOUR[kind] * (1 + share)
    return [
        _steady("EKS control plane", 1, CLUSTER_HOUR),
        Line(f"nodes: {kind}", f"{least}..{most}", least * hour * HOURS, most * hour * HOURS),
    ]


def requested_millis(topology: Topology) -> tuple[int, int]:
    """CPU, in thousandths, that the stack's pods request at rest and under full load."""
    web, others = topology.web, (topology.beat.resources, topology.exporter.resources)
    fixed = sum(each.cpu_request_millis for each in others)
    least = sum(pool.min_workers * pool.resources.cpu_request_millis for pool in topology.pools)
    most = sum(pool.max_workers * pool.resources.cpu_request_millis for pool in topology.pools)
    return (
        fixed + least + web.min_replicas * web.resources.cpu_request_millis,
        fixed + most + web.max_replicas * web.resources.cpu_request_millis,
    )


def nodes_for(millis: int) -> int:
    """Nodes of four CPUs that pods of so many thousandths need: two at least, so that one can go."""
    return max(2, -(-millis // NODE_MILLIS))


def _network(planned: Aws) -> list[Line]:
    network = planned.network
    if network.existing:
        return []
    gateways = {"none": 0, "one": 1, "zone": len(network.zones)}[network.nat]
    endpoints = len(network.endpoints) * len(network.zones)
    return [
        *([_steady("NAT gateways with their addresses", gateways, NAT_HOUR + ADDRESS_HOUR)] if gateways else []),
        *([_steady("interface endpoints, one a zone each", endpoints, ENDPOINT_HOUR)] if endpoints else []),
    ]
