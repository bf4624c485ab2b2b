"""Rules about the network: closed by default, nothing public unless said, data stores reached only by those who need them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from policies.configurations import Configuration, is_production, readable
from policies.graph import UNKNOWN, Graph, UnknownValueError, at
from policies.rule import Option, Options, Plain, Rules, kinds
from policies.servers import PostgresServer, RedisServer, postgres_servers, redis_servers, sentinels
from policies.workloads import Workload, lasting, selects, workloads
from topology.egress import is_inside
from topology.platforms.aws.peers import POD_IDENTITY
from topology.settings.network import RESOLVERS

RULES = Rules("policy-network")
#: What a machine says to whoever asks from it: its metadata and credentials.
_NODE = ("169.254.0.0/16", "fd00:ec2::/32")
#: What clusters are known to offer on their nodes: resolvers, and AWS's agent that gives each pod credentials of its own.
_NODE_SERVICES = (
    *(f"{cidr}:{port}" for resolver in RESOLVERS.values() for cidr in resolver.cidrs for port in resolver.ports),
    f"{POD_IDENTITY[0]}:{POD_IDENTITY[1]}",
)
_ANYWHERE = ("0.0.0.0/0", "::/0")
#: Annotations that keep a cloud's load balancer inside its network.
_INTERNAL = {
    "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
    "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
    "service.beta.kubernetes.io/azure-load-balancer-internal": "true",
    "networking.gke.io/load-balancer-type": "Internal",
}


def _policies(graph: Graph, namespace: str) -> list[Plain]:
    return [Plain(each) for each in graph.of_kind("NetworkPolicy") if each.namespace == namespace]


@RULES.rule(
    "network-default-deny",
    workloads,
    fix="Add a NetworkPolicy for all pods of the namespace with policyTypes Ingress and Egress and no rules",
    runbook="default-deny",
)
def default_deny(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """Without a default deny every pod of the cluster reaches this one, and it reaches everything."""
    closed: set[str] = set()
    for policy in _policies(graph, workload.resource.namespace):
        if not _picks_all(policy.get("spec", "podSelector", default={})):
            continue
        for direction in policy.get("spec", "policyTypes", default=["Ingress"]):
            if not policy.get("spec", direction.lower(), default=[]):
                closed.add(direction)
    missing = sorted({"Ingress", "Egress"} - closed)
    if missing:
        yield f"is in a namespace without default deny for {' and '.join(missing)}"


def _picks_all(selector: Any) -> bool:
    return not at(selector, "matchLabels", default={}) and not at(selector, "matchExpressions", default=[])


@RULES.rule(
    "network-policy-opens-all",
    kinds("NetworkPolicy"),
    fix="Name peers and ports",
    runbook="opening",
    alone=True,
)
def policy_opens_all(policy: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """One policy that allows everything undoes all others, since policies only add; whichever pods it is for."""
    for direction, key in (("ingress", "from"), ("egress", "to")):
        for rule in policy.get("spec", direction, default=[]):
            peers, ports = at(rule, key, default=[]), at(rule, "ports", default=[])
            if not peers and not ports:
                yield f"allows all {direction}"
            elif not peers and (direction == "egress" or _picks_all(policy.get("spec", "podSelector", default={}))):
                yield f"allows {direction} whoever the peer is"
            elif not ports and any(_is_anywhere(peer) for peer in peers):
                yield f"allows {direction} on every port, from or to anywhere"
            elif direction == "egress" and any(at(peer, "namespaceSelector") == {} for peer in peers):
                yield "allows egress to the pods of every namespace"


@RULES.rule(
    "network-node-reached",
    kinds("NetworkPolicy"),
    fix="Except 169.254.0.0/16 and fd00:ec2::/32, or name an address of a node-local service with its port in `node_services`",
    runbook="node",
    alone=True,
    options={
        "node_services": Option(
            list(_NODE_SERVICES), "services of the node that pods may ask, as NETWORK:PORT, such as 169.254.20.10/32:53"
        )
    },
)
def node_reached(policy: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """The metadata service of a cloud's machine gives whoever reaches it the machine's own credentials."""
    for rule in policy.get("spec", "egress", default=[]):
        ports = [at(port, "port") for port in at(rule, "ports", default=[])]
        for peer in at(rule, "to", default=[]):
            cidr = at(peer, "ipBlock", "cidr")
            if cidr is None:
                continue
            known = bool(ports) and all(f"{cidr}:{port}" in options["node_services"] for port in ports)
            open_there = () if known else _open(cidr, at(peer, "ipBlock", "except", default=[]))
            if open_there:
                yield f"reaches {', '.join(open_there)} by {cidr}"


def _open(cidr: str, closed: list[str]) -> tuple[str, ...]:
    """Which networks of the node a block reaches."""
    excepted = [ipaddress.ip_network(each) for each in closed]
    block = ipaddress.ip_network(cidr)
    return tuple(
        each
        for each in _NODE
        if block.overlaps(ipaddress.ip_network(each))
        and not any(is_inside(ipaddress.ip_network(each), one) for one in excepted)
    )


def _is_anywhere(peer: Any) -> bool:
    block = at(peer, "ipBlock", default={})
    return (at(block, "cidr") in _ANYWHERE and not at(block, "except")) or at(peer, "namespaceSelector") == {}


def _stores(graph: Graph) -> list[Workload]:
    """Workloads that hold data or say where it is."""
    urns = {each.resource.urn for each in (*graph.derive(redis_servers), *graph.derive(postgres_servers))}
    urns |= {each.resource.urn for each in graph.derive(sentinels)}
    return [each for each in graph.derive(lasting) if each.resource.urn in urns]


@RULES.rule(
    "network-store-open",
    _stores,
    fix="Add a NetworkPolicy for its pods that names who may connect, by podSelector",
    runbook="stores",
)
def store_open(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """A data store should be reached only by the pods that use it, not by whatever runs in the cluster."""
    mine = [
        each
        for each in _policies(graph, workload.resource.namespace)
        if selects(each.get("spec", "podSelector", default={}), workload.labels)
        and "Ingress" in each.get("spec", "policyTypes", default=["Ingress"])
    ]
    if not mine:
        yield "is reached by every pod of the cluster: no policy picks it"
    for policy in mine:
        for rule in policy.get("spec", "ingress", default=[]):
            if not at(rule, "from", default=[]) or any(_is_anywhere(peer) for peer in at(rule, "from", default=[])):
                yield f"is reached from anywhere by {policy.resource.title}"


@RULES.rule(
    "network-public-service",
    kinds("Service"),
    fix="Use type ClusterIP behind an Ingress or a Gateway, or name it in the rule's option `public`",
    runbook="public",
    alone=True,
    options={"public": Option([], "names of Services that are meant to be public")},
)
def public_service(service: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A Service with an address outside of the cluster is an entrance that nobody decided."""
    if service.resource.object_name in options["public"]:
        return
    kind = service.get("spec", "type", default="ClusterIP")
    annotations = service.get("metadata", "annotations", default={})
    internal = any(str(annotations.get(key, "")) == value for key, value in _INTERNAL.items())
    if kind == "NodePort" or (kind == "LoadBalancer" and not internal):
        yield f"is of type {kind}"
    if service.get("spec", "externalIPs", default=[]):
        yield f"has external addresses {', '.join(service.get('spec', 'externalIPs'))}"


@RULES.rule(
    "network-service-without-pods",
    kinds("Service"),
    fix="Make its selector the labels of some workload's pods",
    runbook="opening",
)
def service_without_pods(service: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A Service that picks no pods answers nobody."""
    # Which pod of a StatefulSet: the controller labels each with its number.
    match = {
        key: value
        for key, value in service.get("spec", "selector", default={}).items()
        if key != "apps.kubernetes.io/pod-index"
    }
    namespace = service.resource.namespace
    pods = [each for each in graph.derive(workloads) if each.resource.namespace == namespace]
    graph.require_complete()
    if match and pods and not any(selects({"matchLabels": match}, each.labels) for each in pods):
        yield "picks no pods of this stack"


@RULES.rule(
    "network-ingress-plain",
    kinds("Ingress"),
    fix="Give the Ingress a tls section for each of its hosts",
    runbook="public",
    alone=True,
)
def ingress_plain(ingress: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Users log in over this route: without TLS their passwords and sessions travel in clear."""
    secured = {host for each in ingress.get("spec", "tls", default=[]) for host in at(each, "hosts", default=[])}
    if UNKNOWN in secured:
        raise UnknownValueError
    for rule in ingress.get("spec", "rules", default=[]):
        if at(rule, "host", default="*") not in secured:
            yield f"serves {at(rule, 'host', default='every host')} without TLS"


def _redis_of_production(graph: Graph) -> list[RedisServer]:
    """Redis servers in pods, where the stack is in environment prod; ElastiCache's have a rule of their own."""
    return [each for each in graph.derive(redis_servers) if each.container] if graph.derive(is_production) else []


def _postgres_of_production(graph: Graph) -> list[PostgresServer]:
    """PostgreSQL servers in pods, where the stack is in environment prod; RDS's have a rule of their own."""
    if not graph.derive(is_production):
        return []
    return [each for each in graph.derive(postgres_servers) if each.resource.is_kubernetes]


def _configurations_of_production(graph: Graph) -> list[Configuration]:
    return [each for each in graph.derive(readable) if each.topology and each.topology.environment == "prod"]


@RULES.rule(
    "network-redis-plain",
    _redis_of_production,
    fix="Set redis.tls: {kind: generated}, or cert-manager, or secret",
    runbook="encryption",
)
def redis_plain(server: RedisServer, graph: Graph, options: Options) -> Iterator[str]:
    """In environment prod messages, results and passwords cross the network encrypted, or whoever listens has them."""
    if server.takes_plain:
        yield "lets clients in without TLS"


@RULES.rule(
    "network-postgres-plain",
    _postgres_of_production,
    fix="Set postgres.tls: {kind: generated}, or cert-manager, or secret",
    runbook="encryption",
)
def postgres_plain(server: PostgresServer, graph: Graph, options: Options) -> Iterator[str]:
    """In environment prod users, queries and sessions cross the network encrypted, or whoever listens has them."""
    if server.takes_plain:
        yield "lets clients in without TLS"


@RULES.rule(
    "network-clients-plain",
    _configurations_of_production,
    fix="Set redis.tls and postgres.tls; of existing servers existing.tls and postgres.ca_secret",
    runbook="encryption",
)
def clients_plain(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """In environment prod clients verify whom they talk to: else another server gets their passwords."""
    topology = found.topology
    if topology is None:
        return
    for server, name in (*((each, each.name) for each in topology.redis), (topology.postgres, "the metadata database")):
        if server.tls is None:
            yield f"does not verify {name} at {server.host}"
