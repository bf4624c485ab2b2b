"""Who reaches the pods, whom they reach, and who watches them."""

from __future__ import annotations

from pydantic import Field

from topology.settings.resources import Resources
from topology.settings.section import Section
from topology.settings.values import Cidr, NamespaceName


class OperatorNamespaces(Section):
    """Where the cluster's operators run: they connect to servers of the stack."""

    keda: NamespaceName = Field(description="namespace of KEDA, which reads the broker where workers.scaling.kind is keda")
    cloudnativepg: NamespaceName = Field(description="namespace of CloudNativePG, which looks after its servers")


class NetworkSettings(Section):
    """Who outside the namespace is reached by its pods, and connects to them."""

    database_cidrs: tuple[Cidr, ...] = Field(strict=False, description="networks of the analytic databases")
    operator_namespaces: OperatorNamespaces


class MetricsSettings(Section):
    """The exporter of queue metrics; see docs/metrics.md."""

    from_namespaces: tuple[NamespaceName, ...] = Field(strict=False, description="namespaces whose pods may scrape it")
    service_monitor: bool = Field(
        description="tell the Prometheus operator of it by a ServiceMonitor; false: by annotations of its Service"
    )
    resources: Resources
