"""What one tenant's pods may have of the cluster, and whose pods go first when there is no room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.scheduling import v1 as scheduling

from components.common import PREFIX, SUPERSET, Scope, labels, metadata, name_of
from topology.quantities import format_cpu, format_memory
from topology.settings.resources import Quota
from topology.settings.tenants import Priority

#: Below every pod that names no class (the platform's own, and other people's), so that a tenant's workers never push those
#: out and are the first to go, the lowest first; and not below -10, where cluster autoscalers stop adding nodes for a pod.
VALUES: Mapping[Priority, int] = {"high": -1, "normal": -5, "low": -10}


@dataclass(frozen=True)
class TenantShareArgs:
    """What a tenant's share needs."""

    scope: Scope
    tenant: str
    priority: Priority
    #: The most that the tenant's pods request together; None: no limit.
    quota: Quota | None


class TenantShare(pulumi.ComponentResource):
    """A PriorityClass for one tenant's pods, and a ResourceQuota that counts the pods of that class alone.

    A class belongs to the whole cluster, so that its name has the namespace's, of which there is one; it cannot be changed,
    so that its name has the priority as well.
    """

    #: Name of the PriorityClass.
    priority_class: pulumi.Output[str]

    def __init__(self, name: str, args: TenantShareArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:tenant:TenantShare", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        object_labels = labels(args.scope, SUPERSET, name)
        # Names that begin with system- are Kubernetes's own, and a namespace may.
        class_name = pulumi.Output.concat(f"{PREFIX}.", args.scope.namespace, f".{args.tenant}.{args.priority}")
        made = scheduling.PriorityClass(
            name,
            metadata=meta.ObjectMetaArgs(name=class_name, labels=object_labels),
            value=VALUES[args.priority],
            description=f"Workers of tenant {args.tenant}: priority {args.priority} among tenants",
            opts=child,
        )
        self.priority_class = pulumi.Output.all(name_of(made.metadata, name), class_name).apply(lambda both: str(both[1]))
        if args.quota:
            core.ResourceQuota(
                name,
                metadata=metadata(args.scope, name, object_labels),
                spec=core.ResourceQuotaSpecArgs(
                    hard={
                        "requests.cpu": format_cpu(args.quota.cpu_millis),
                        "requests.memory": format_memory(args.quota.memory_bytes),
                    },
                    scope_selector=core.ScopeSelectorArgs(
                        match_expressions=[
                            core.ScopedResourceSelectorRequirementArgs(
                                scope_name="PriorityClass", operator="In", values=[self.priority_class]
                            )
                        ]
                    ),
                ),
                opts=child,
            )
        self.register_outputs({"priority_class": self.priority_class})
