"""Who may reach whom, from the topology alone: `python -m topology.reachability` writes docs/network.md.

The policies that a stack gets are written elsewhere (`infra`), from groups of labels. Tests compare both, by a reader of policies
that knows neither.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

from topology import stack_file
from topology.model import SENTINEL_PORT, SENTINEL_SUFFIX, Peer, PodGroup, RedisInstance, Topology
from topology.plan import plan

#: Jobs that read the metadata database beside Superset.
BACKUPS = ("postgres-backup", "postgres-backup-restore")


class Reach(NamedTuple):
    """Pods of the workload or namespace `source` connect to TCP `port` of `target`: a workload, a namespace or a network."""

    source: str
    target: str
    port: int


def groups(topology: Topology) -> dict[PodGroup, tuple[str, ...]]:
    """The workloads of each group of pods."""
    workers = tuple(f"worker-{pool.name}" for pool in topology.pools)
    return {"superset": ("web", *workers, "beat", "init"), "web": ("web",), "exporter": ("exporter",)}


def reaches(topology: Topology) -> Iterator[Reach]:
    """Everything that is let through but questions to resolvers (`topology.resolvers`), which all pods may ask."""
    yield from _inward(topology)
    superset = groups(topology)["superset"]
    for instance in topology.redis:
        if instance.existing is None and topology.aws is None:
            yield from _of_redis(topology, instance, superset)
    if topology.postgres.kind == "statefulset":
        clients = (*superset, *(BACKUPS if topology.postgres.backup else ()))
        yield from (Reach(each, topology.postgres.host, topology.postgres.port) for each in clients)
    for peer in topology.egress:
        yield from _outward(topology, peer)


def _inward(topology: Topology) -> Iterator[Reach]:
    route, exporter = topology.web.route, topology.exporter
    for namespace in route.from_namespaces if route else ():
        yield Reach(f"namespace {namespace}", "web", topology.web.port)
    if topology.aws and topology.aws.load_balancer:
        yield Reach(topology.aws.network.cidr, "web", topology.web.port)
    counted = len(topology.pools) > 1 and _keda(topology)
    for namespace in (*exporter.from_namespaces, *([topology.operator_namespaces.keda] if counted else [])):
        yield Reach(f"namespace {namespace}", "exporter", exporter.port)


def _of_redis(topology: Topology, instance: RedisInstance, superset: tuple[str, ...]) -> Iterator[Reach]:
    sentinels = f"{instance.name}{SENTINEL_SUFFIX}" if instance.sentinel else None
    clients = list(superset)
    if instance.carries_broker:
        clients.append("exporter")
        if _keda(topology):
            clients.append(f"namespace {topology.operator_namespaces.keda}")
    if instance.replicas:
        clients.append(instance.name)
    if sentinels:
        clients.append(sentinels)
        yield from (Reach(each, sentinels, SENTINEL_PORT) for each in dict.fromkeys((*clients, instance.name, sentinels)))
    yield from (Reach(each, instance.name, instance.port) for each in clients)


def _outward(topology: Topology, peer: Peer) -> Iterator[Reach]:
    targets = [f"namespace {peer.namespace}"] if peer.namespace else peer.cidrs
    for group in peer.pods:
        for source in groups(topology)[group]:
            yield from (Reach(source, target, port) for target in targets for port in peer.ports)


def _keda(topology: Topology) -> bool:
    return any(pool.scaling and pool.scaling.kind == "keda" for pool in topology.pools)


_HEADER = """# Who may reach whom

Written by `make docs` from the topologies of the stack files. Nothing else is let through: a NetworkPolicy denies both directions
by default, and there is one for each flow. `tests/components/test_reachability.py` compares this table with what the rendered
policies allow, as network-config-analyzer reads them. Every pod may also ask the resolvers of `network.dns` and
`network.dns_cidrs`, port 53.

## What leaves the stack

A NetworkPolicy knows no host names, so each peer has networks and ports. Where a stack says none, they are the address that the
host is, or the pods of the namespace of a Service (`db.shop.svc`); any other host name is refused. A database's port is its
URI's, or the one that its dialect has.

| peer | key |
|---|---|
| an analytic database | `databases.<name>.cidrs`, `databases.<name>.ports` |
| a Redis server that exists | `redis.broker.existing.cidrs`, `redis.cache.existing.cidrs` |
| a PostgreSQL server that exists | `postgres.cidrs` |
| identity provider, directory | `superset.sign_on.cidrs` |
| collector of traces | `tracing.cidrs` |
| mail server, proxy, databases added in Superset | `network.egress.<name>` |
| the API server, for CloudNativePG's servers alone | `network.api_server_cidrs`; default: all but the node, ports 443 and 6443 |

`0.0.0.0/0` is the Internet: private networks (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7) stay closed,
and with them the pods of other namespaces; name those that you need beside it. What ends at the node (169.254.0.0/16,
fd00:ec2::/32, fe80::/10: the machine's metadata and credentials) is excepted from every block, and refused where a stack names
it. Resolvers on the node have keys of their own; on AWS the agent of EKS Pod Identity (169.254.170.23, port 80) is let through.

Superset's own setting of a mail server or a proxy opens nothing by itself: its networks go into `network.egress`.

"""


def document() -> str:
    """docs/network.md."""
    tables = (_table(plan(stack, stack_file.read(stack))) for stack in stack_file.names() if stack != "local")
    return _HEADER + "\n".join(tables)


def _table(topology: Topology) -> str:
    known = groups(topology)
    targets: dict[tuple[str, int], list[str]] = {}
    for each in reaches(topology):
        targets.setdefault((each.target, each.port), []).append(each.source)
    lines = [f"## {topology.stack}", "", "| who | reaches | port |", "|---|---|---|"]
    for (target, port), sources in targets.items():
        all_of_superset = set(known["superset"]) <= set(sources)
        others = [each for each in sources if not (all_of_superset and each in known["superset"])]
        who: list[str] = list(dict.fromkeys([*(["Superset's pods"] if all_of_superset else []), *others]))
        lines.append(f"| {', '.join(who)} | {target} | {port} |")
    return "\n".join([*lines, "", f"Superset's pods: {', '.join(known['superset'])}.", ""])


if __name__ == "__main__":
    sys.stdout.write(document())
