"""Who may talk to whom: nothing, but for the flows that the topology needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.networking import v1 as networking

from components.common import SUPERSET, Scope, labels, metadata

NAME = "network"


@dataclass(frozen=True)
class Server:
    """A server of this stack that Superset's processes connect to."""

    #: Name of its policy.
    name: str
    #: Labels of its pods.
    match: Mapping[str, str]
    port: int


@dataclass(frozen=True)
class NetworkPoliciesArgs:
    """The flows that a stack needs."""

    scope: Scope
    web_port: int
    web_match: Mapping[str, str]
    servers: Sequence[Server]
    #: Ports of servers outside of the stack, such as an existing PostgreSQL.
    outside_ports: Sequence[int]
    #: Where analytic databases are: web and workers may connect to every port there.
    database_cidrs: Sequence[str]


class NetworkPolicies(pulumi.ComponentResource):
    """Default deny in both directions, then one policy for each flow.

    Pods of Superset reach Redis, PostgreSQL and the analytic databases; only they reach Redis and PostgreSQL. Anybody
    reaches the web port (an ingress controller's address is not known here), and every pod may ask the cluster's DNS.
    """

    #: Names of the policies.
    policies: tuple[str, ...]

    def __init__(self, name: str, args: NetworkPoliciesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:network:NetworkPolicies", name, None, opts)
        scope = args.scope
        superset = {"app.kubernetes.io/name": SUPERSET, "app.kubernetes.io/instance": scope.stack}
        outside = [networking.NetworkPolicyEgressRuleArgs(ports=[_tcp(port)]) for port in args.outside_ports]
        specs = {
            "default-deny": networking.NetworkPolicySpecArgs(
                pod_selector=meta.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
            ),
            "dns": networking.NetworkPolicySpecArgs(
                pod_selector=meta.LabelSelectorArgs(), policy_types=["Egress"], egress=[_dns()]
            ),
            "superset": networking.NetworkPolicySpecArgs(
                pod_selector=_pods(superset),
                policy_types=["Egress"],
                egress=[
                    *(
                        networking.NetworkPolicyEgressRuleArgs(
                            to=[networking.NetworkPolicyPeerArgs(pod_selector=_pods(server.match))],
                            ports=[_tcp(server.port)],
                        )
                        for server in args.servers
                    ),
                    *outside,
                    *_databases(args.database_cidrs),
                ],
            ),
            "web": networking.NetworkPolicySpecArgs(
                pod_selector=_pods(args.web_match),
                policy_types=["Ingress"],
                ingress=[networking.NetworkPolicyIngressRuleArgs(ports=[_tcp(args.web_port)])],
            ),
        }
        for server in args.servers:
            specs[server.name] = networking.NetworkPolicySpecArgs(
                pod_selector=_pods(server.match),
                policy_types=["Ingress"],
                ingress=[
                    networking.NetworkPolicyIngressRuleArgs(
                        from_=[networking.NetworkPolicyPeerArgs(pod_selector=_pods(superset))], ports=[_tcp(server.port)]
                    )
                ],
            )
        object_labels = labels(scope, NAME, name)
        for policy, spec in specs.items():
            networking.NetworkPolicy(
                f"{name}-{policy}",
                metadata=metadata(scope, f"{name}-{policy}", object_labels),
                spec=spec,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.policies = tuple(f"{name}-{policy}" for policy in specs)
        self.register_outputs({"policies": list(self.policies)})


def _pods(match: Mapping[str, str]) -> meta.LabelSelectorArgs:
    return meta.LabelSelectorArgs(match_labels=dict(match))


def _tcp(port: int) -> networking.NetworkPolicyPortArgs:
    return networking.NetworkPolicyPortArgs(port=port, protocol="TCP")


def _dns() -> networking.NetworkPolicyEgressRuleArgs:
    """DNS in kube-system, and at the address where a node's own DNS cache listens."""
    return networking.NetworkPolicyEgressRuleArgs(
        to=[
            networking.NetworkPolicyPeerArgs(namespace_selector=_pods({"kubernetes.io/metadata.name": "kube-system"})),
            networking.NetworkPolicyPeerArgs(ip_block=networking.IPBlockArgs(cidr="169.254.20.10/32")),
        ],
        ports=[networking.NetworkPolicyPortArgs(port=53, protocol=protocol) for protocol in ("UDP", "TCP")],
    )


def _databases(cidrs: Sequence[str]) -> list[networking.NetworkPolicyEgressRuleArgs]:
    if not cidrs:
        return []
    peers = [networking.NetworkPolicyPeerArgs(ip_block=networking.IPBlockArgs(cidr=cidr)) for cidr in cidrs]
    return [networking.NetworkPolicyEgressRuleArgs(to=peers)]
