"""The namespace that holds everything of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.common import PREFIX, name_of


@dataclass(frozen=True)
class NamespaceArgs:
    """What a namespace needs."""

    #: Name of the namespace.
    namespace: str
    #: The stack's name, for `app.kubernetes.io/instance`.
    stack: str
    #: The stack file's own labels.
    labels: Mapping[str, str]
    #: Whether it is there already, and somebody else's.
    existing: bool = False


class Namespace(pulumi.ComponentResource):
    """A namespace in which the API server refuses every pod that does not meet Pod Security `restricted`.

    The engine refuses to delete it, and only forgets it where it has been unprotected: what is in it would go with it. One that
    exists is only named.
    """

    #: Name of the namespace, known once it exists.
    namespace: pulumi.Output[str]

    def __init__(self, name: str, args: NamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:namespace:Namespace", name, None, opts)
        if args.existing:
            self.namespace = pulumi.Output.from_input(args.namespace)
            self.register_outputs({"namespace": self.namespace})
            return
        pod_security = {
            f"pod-security.kubernetes.io/{mode}{suffix}": value
            for mode in ("enforce", "audit", "warn")
            for suffix, value in (("", "restricted"), ("-version", "latest"))
        }
        namespace = core.Namespace(
            name,
            metadata=meta.ObjectMetaArgs(
                name=args.namespace,
                labels={
                    **args.labels,
                    "app.kubernetes.io/part-of": PREFIX,
                    "app.kubernetes.io/managed-by": "pulumi",
                    "app.kubernetes.io/instance": args.stack,
                    **pod_security,
                },
            ),
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        )
        self.namespace = name_of(namespace.metadata, args.namespace)
        self.register_outputs({"namespace": self.namespace})
