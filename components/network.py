"""Who may talk to whom: nothing, but for the flows that the topology needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.networking import v1 as networking

from components.common import Scope, labels, metadata
from topology.settings.network import Resolver

NAME = "network"


@dataclass(frozen=True)
class Group:
    """Some of the stack's pods, under a name for their policies."""

    name: str
    match: Mapping[str, str]


@dataclass(frozen=True)
class Flow:
    """Pods of `source`, or of the namespace that it names, connect to `port` of the pods of `target`."""

    source: Group | str
    target: Group
    port: int


@dataclass(frozen=True)
class Outside:
    """Pods of `source` connect to `ports` in networks, each without those closed inside of it, or of a namespace's pods."""

    source: Group
    ports: Sequence[int]
    networks: Mapping[str, Sequence[str]]
    namespace: str | None = None


@dataclass(frozen=True)
class InsideNetworks:
    """Whatever is in these networks, such as a load balancer, connects to `port` of the pods of `target`."""

    cidrs: Sequence[str]
    target: Group
    port: int


@dataclass(frozen=True)
class NetworkPoliciesArgs:
    """The flows that a stack needs."""

    scope: Scope
    flows: Sequence[Flow]
    outside: Sequence[Outside]
    inside: Sequence[InsideNetworks] = ()
    #: Where every pod may ask for names.
    resolvers: Sequence[Resolver] = ()


class NetworkPolicies(pulumi.ComponentResource):
    """Default deny in both directions; the cluster's DNS for every pod; then the flows, one policy a group and direction."""

    #: Names of the policies.
    policies: tuple[str, ...]

    def __init__(self, name: str, args: NetworkPoliciesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:network:NetworkPolicies", name, None, opts)
        everything = meta.LabelSelectorArgs()
        specs = {
            "default-deny": networking.NetworkPolicySpecArgs(pod_selector=everything, policy_types=["Ingress", "Egress"]),
            "dns": networking.NetworkPolicySpecArgs(
                pod_selector=everything, policy_types=["Egress"], egress=[_dns(each) for each in args.resolvers]
            ),
            **{
                f"from-{group.name}": networking.NetworkPolicySpecArgs(
                    pod_selector=_pods(group), policy_types=["Egress"], egress=_egress(args, group)
                )
                for group in _distinct([*(flow.source for flow in args.flows), *(each.source for each in args.outside)])
            },
            **{
                f"to-{group.name}": networking.NetworkPolicySpecArgs(
                    pod_selector=_pods(group), policy_types=["Ingress"], ingress=_ingress(args, group)
                )
                for group in _distinct([*(flow.target for flow in args.flows), *(each.target for each in args.inside)])
            },
        }
        object_labels = labels(args.scope, NAME, name)
        for policy, spec in specs.items():
            networking.NetworkPolicy(
                f"{name}-{policy}",
                metadata=metadata(args.scope, f"{name}-{policy}", object_labels),
                spec=spec,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.policies = tuple(f"{name}-{policy}" for policy in specs)
        self.register_outputs({"policies": list(self.policies)})


def _distinct(ends: Sequence[Group | str]) -> list[Group]:
    return list({end.name: end for end in ends if isinstance(end, Group)}.values())


def _egress(args: NetworkPoliciesArgs, source: Group) -> list[networking.NetworkPolicyEgressRuleArgs]:
    return [
        *(
            networking.NetworkPolicyEgressRuleArgs(to=_peer(flow.target), ports=[_tcp(flow.port)])
            for flow in args.flows
            if flow.source == source
        ),
        *(
            networking.NetworkPolicyEgressRuleArgs(to=_outside(each), ports=[_tcp(port) for port in each.ports])
            for each in args.outside
            if each.source == source
        ),
    ]


def _ingress(args: NetworkPoliciesArgs, target: Group) -> list[networking.NetworkPolicyIngressRuleArgs]:
    return [
        *(
            networking.NetworkPolicyIngressRuleArgs(from_=_peer(flow.source), ports=[_tcp(flow.port)])
            for flow in args.flows
            if flow.target == target
        ),
        *(
            networking.NetworkPolicyIngressRuleArgs(from_=_blocks(each.cidrs), ports=[_tcp(each.port)])
            for each in args.inside
            if each.target == target
        ),
    ]


def _peer(end: Group | str) -> list[networking.NetworkPolicyPeerArgs]:
    if isinstance(end, str):
        return [networking.NetworkPolicyPeerArgs(namespace_selector=_namespace(end))]
    return [networking.NetworkPolicyPeerArgs(pod_selector=_pods(end))]


def _outside(peer: Outside) -> list[networking.NetworkPolicyPeerArgs]:
    if peer.namespace:
        return _peer(peer.namespace)
    return [
        networking.NetworkPolicyPeerArgs(
            ip_block=networking.IPBlockArgs(cidr=cidr, except_=list(closed) if closed else None)
        )
        for cidr, closed in peer.networks.items()
    ]


def _blocks(cidrs: Sequence[str]) -> list[networking.NetworkPolicyPeerArgs]:
    return [networking.NetworkPolicyPeerArgs(ip_block=networking.IPBlockArgs(cidr=cidr)) for cidr in cidrs]


def _namespace(name: str) -> meta.LabelSelectorArgs:
    return meta.LabelSelectorArgs(match_labels={"kubernetes.io/metadata.name": name})


def _pods(group: Group) -> meta.LabelSelectorArgs:
    return meta.LabelSelectorArgs(match_labels=dict(group.match))


def _tcp(port: int) -> networking.NetworkPolicyPortArgs:
    return networking.NetworkPolicyPortArgs(port=port, protocol="TCP")


def _dns(resolver: Resolver) -> networking.NetworkPolicyEgressRuleArgs:
    namespace = resolver.namespace
    return networking.NetworkPolicyEgressRuleArgs(
        to=[
            *([networking.NetworkPolicyPeerArgs(namespace_selector=_namespace(namespace))] if namespace else []),
            *_blocks(resolver.cidrs),
        ],
        ports=[
            networking.NetworkPolicyPortArgs(port=port, protocol=protocol)
            for port in resolver.ports
            for protocol in ("UDP", "TCP")
        ],
    )
