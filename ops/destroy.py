"""`superset-async destroy`: a stack's workloads go, and its data stays unless it is told otherwise.

`pulumi destroy` does not run the program, so that what it may not delete stands in the engine's state: it is protected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from ops.engine import Resource
from ops.stack_cluster import INSTANCE, Cluster

#: Generated values go with the data: another password, or another key of messages, fits nothing that was kept.
PASSWORDS = "**random:index/randomPassword:RandomPassword::**"


def kept(resources: Sequence[Resource]) -> Iterator[str]:
    """What a destroy leaves, a line each, of the resources in the engine's state."""
    for each in resources:
        kind = str(each["type"]).rpartition(":")[2]
        if each.get("protect") and kind != "RandomPassword":
            yield f"{kind} {_metadata(each).get('name')}"
    passwords = sum(str(each["type"]).endswith(":RandomPassword") for each in resources)
    if passwords:
        yield f"{passwords} generated passwords and keys, in the engine's state"


def namespace_of(resources: Sequence[Resource]) -> str | None:
    """The namespace of the stack's objects; None where the state has none."""
    return next((found["namespace"] for found in map(_metadata, resources) if found.get("namespace")), None)


def owns_namespace(resources: Sequence[Resource]) -> bool:
    """Whether the stack made its namespace."""
    return any(each["type"] == "kubernetes:core/v1:Namespace" for each in resources)


def _metadata(resource: Resource) -> dict[str, str]:
    inputs = cast("dict[str, Any]", resource.get("inputs") or {})
    return cast("dict[str, str]", inputs.get("metadata") or {}) if str(resource["type"]).startswith("kubernetes:") else {}


def commands(stack: str, resources: Sequence[Resource], cluster: Cluster, *, with_data: bool) -> list[list[str]]:
    """What to run, in this order; the first that fails ends it. `cluster` is the stack's."""
    engine = ["--stack", stack, "--yes"]
    if not with_data:
        return [["pulumi", "destroy", *engine, "--exclude-protected", "--exclude", PASSWORDS]]
    namespace, own = namespace_of(resources), f"{INSTANCE}={stack}"
    # Claims are made by StatefulSets, and a namespace is forgotten and not deleted: both go here. In somebody else's namespace
    # only the claims are this stack's.
    claims = cluster.command("--namespace", str(namespace), "delete", "persistentvolumeclaim", "--selector", own)
    whole = cluster.command("delete", "namespace", str(namespace))
    return [
        ["pulumi", "state", "unprotect", "--all", *engine],
        ["pulumi", "destroy", *engine],
        *([whole if owns_namespace(resources) else claims] if namespace else []),
    ]
