"""Who reaches the pods, whom they reach, and who watches them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from topology.histograms import WAIT_BUCKETS
from topology.settings.resources import Resources
from topology.settings.section import Section
from topology.settings.values import Cidr, NamespaceName, ServerPort

#: Percent of an objective: at 100 there would be no budget to burn.
Objective = Annotated[float, Field(ge=50, lt=100)]


def is_bound(seconds: float) -> float:
    """The value itself; ValueError for one between two bounds, which the histogram of waits cannot tell."""
    if seconds not in WAIT_BUCKETS:
        raise ValueError(f"must be one of {', '.join(f'{bound:g}' for bound in WAIT_BUCKETS)}|Choose the nearest")
    return seconds


class OperatorNamespaces(Section):
    """Where the cluster's operators run: they connect to servers of the stack."""

    keda: NamespaceName = Field(description="namespace of KEDA, which reads the broker where workers.scaling.kind is keda")
    cloudnativepg: NamespaceName = Field(description="namespace of CloudNativePG, which looks after its servers")


class Resolver(Section):
    """Where pods ask for names: the pods of a namespace, or networks, on `ports`."""

    namespace: NamespaceName | None = None
    cidrs: tuple[Cidr, ...] = ()
    ports: tuple[int, ...] = (53,)


#: Where clusters are known to resolve names. A policy names the address that the network sees: a cache on the node takes part in
#: no namespace, and a pod is seen with the port that it listens on, not with its Service's.
RESOLVERS = {
    "kube-dns": Resolver(namespace="kube-system"),
    "node-local": Resolver(cidrs=("169.254.20.10/32",)),
    "kubespray": Resolver(cidrs=("169.254.25.10/32",)),
    "gke-cloud-dns": Resolver(cidrs=("169.254.169.254/32",)),
    "aks-local-dns": Resolver(cidrs=("169.254.10.10/32", "169.254.10.11/32")),
    "openshift": Resolver(namespace="openshift-dns", ports=(53, 5353)),
}
ResolverName = Literal["kube-dns", "node-local", "kubespray", "gke-cloud-dns", "aks-local-dns", "openshift"]


class Egress(Section):
    """A peer outside of the stack that its pods may reach, over TCP."""

    cidrs: Annotated[tuple[Cidr, ...], Field(min_length=1)] = Field(
        strict=False, description="its networks; 0.0.0.0/0 is the whole Internet without private networks"
    )
    ports: Annotated[tuple[ServerPort, ...], Field(min_length=1)] = Field(strict=False, description="its ports")
    pods: Literal["superset", "web"] = Field(
        default="superset", description="who reaches it: superset (web, workers, beat and the init job) or web alone"
    )


class NetworkSettings(Section):
    """Who outside the namespace is reached by its pods, and connects to them."""

    dns: tuple[ResolverName, ...] = Field(
        strict=False,
        description="the cluster's resolvers: kube-dns (pods of kube-system), node-local (169.254.20.10), kubespray "
        "(169.254.25.10), gke-cloud-dns (169.254.169.254, port 53), aks-local-dns (169.254.10.10 and .11), openshift "
        "(openshift-dns, port 5353)",
    )
    dns_cidrs: tuple[Cidr, ...] = Field(
        strict=False, description="further networks of resolvers, port 53; cat /etc/resolv.conf in a pod shows the address"
    )

    egress: dict[str, Egress] = Field(
        description="whom else pods reach, by a name of your choice: mail servers, proxies, databases added in Superset; "
        "what the stack names elsewhere (databases, existing servers, sign_on) needs no entry"
    )
    api_server_cidrs: tuple[Cidr, ...] = Field(
        strict=False,
        description="networks of the cluster's API server, ports 443 and 6443, which CloudNativePG's servers ask: "
        "kubectl get endpoints kubernetes shows its addresses",
    )
    operator_namespaces: OperatorNamespaces


class Objectives(Section):
    """What the stack promises over 30 days, for each queue and tenant; alerts page when it is about to be broken."""

    wait: Annotated[float, AfterValidator(is_bound)] = Field(
        strict=False, description="seconds within which a worker begins a query; a bound of the histogram of waits"
    )
    waits_met: Objective = Field(strict=False, description="percent of queries that begin within that time")
    ends_well: Objective = Field(
        strict=False,
        description="percent of queries that end neither lost nor at a limit; an error of the query itself is no breach",
    )


class MetricsSettings(Section):
    """The exporter of queue metrics, and the rules on them; see docs/metrics.md and docs/runbooks/alerts.md."""

    from_namespaces: tuple[NamespaceName, ...] = Field(strict=False, description="namespaces whose pods may scrape it")
    service_monitor: bool = Field(
        description="tell the Prometheus operator of it by a ServiceMonitor; false: by annotations of its Service"
    )
    rules: bool = Field(
        description="give the Prometheus operator the stack's alerts and recording rules as a PrometheusRule"
    )
    runbooks: str = Field(
        description="URL under which the people who are paged read docs/runbooks; each alert links to its page there"
    )
    objectives: Objectives
    resources: Resources
