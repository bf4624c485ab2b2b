"""What became of a stack on the API server: whether it is at rest, what it consists of, and which pods were replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.cluster.control_plane import ControlPlane, Manifest, wait_until

#: What is looked at to say whether a stack is at rest.
WATCHED = "deployments,statefulsets,jobs,persistentvolumeclaims,poddisruptionbudgets,horizontalpodautoscalers,pods"
COMPONENT = "app.kubernetes.io/component"


def identity(manifest: Manifest) -> str:
    """`Kind/name`, for messages and as a key within a namespace."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def unsettled(cluster: ControlPlane, namespace: str) -> list[str]:
    """Why the namespace is not at rest, one line an object; empty when every controller is content."""
    objects = cluster.get(WATCHED, namespace)
    return [f"{identity(each)}: {why}" for each in objects for why in _complaints(each)]


def _complaints(each: Manifest) -> Iterable[str]:
    kind, spec, status, metadata = each["kind"], each["spec"], each.get("status", {}), each["metadata"]
    if kind in ("Deployment", "StatefulSet", "PodDisruptionBudget") and (
        status.get("observedGeneration") != metadata["generation"]
    ):
        yield "its controller has not seen it"
    match kind:
        case "Deployment" | "StatefulSet":
            wanted = spec["replicas"]
            for count in ("replicas", "updatedReplicas", "readyReplicas"):
                if status.get(count, 0) != wanted:
                    yield f"{count} is {status.get(count, 0)} of {wanted}; {_reasons(status)}"
        case "Job":
            if "Complete" not in _true(status):
                yield f"is not complete; {_reasons(status)}"
        case "PersistentVolumeClaim":
            if status.get("phase") != "Bound":
                yield f"is {status.get('phase')}"
        case "PodDisruptionBudget":
            if not status.get("expectedPods"):
                yield "selects no pod"
            elif status["currentHealthy"] < status["expectedPods"] or not status["disruptionsAllowed"]:
                yield f"allows no disruption: {status}"
        case "HorizontalPodAutoscaler":
            if not {"AbleToScale", "ScalingActive"} <= _true(status):
                yield f"does not scale; {_reasons(status)}"
            elif status["desiredReplicas"] < spec["minReplicas"]:
                yield f"wants {status['desiredReplicas']} of at least {spec['minReplicas']}"
        case _:
            if "deletionTimestamp" in metadata:
                yield "is going"


def _true(status: dict[str, Any]) -> set[str]:
    return {each["type"] for each in status.get("conditions", []) if each["status"] == "True"}


def _reasons(status: dict[str, Any]) -> str:
    found = [each for each in status.get("conditions", []) if each.get("message")]
    return "; ".join(f"{each['type']}={each['status']}: {each['message']}" for each in found) or "no conditions yet"


def settle(cluster: ControlPlane, namespace: str, seconds: float = 60) -> None:
    """Wait until the namespace is at rest; an AssertionError that lists what is not."""

    def at_rest() -> bool:
        problems[:] = unsettled(cluster, namespace)
        return not problems

    problems: list[str] = []
    try:
        wait_until(at_rest, f"{namespace} is at rest", seconds, every=1)
    except AssertionError as error:
        events = cluster.get("events", namespace)
        warnings = sorted({f"{each['reason']}: {each['message']}" for each in events if each["type"] == "Warning"})
        raise AssertionError("\n".join([str(error), *problems, *warnings])) from None


def desired(cluster: ControlPlane, manifests: Iterable[Manifest], namespace: str) -> dict[str, Manifest]:
    """The objects of `manifests` as the server has them, by identity, without what controllers report about them."""
    wanted = {identity(each) for each in manifests}
    kinds = sorted({_resource(each) for each in manifests if each["kind"] != "Namespace"})
    found = {identity(each): each for each in cluster.get(",".join(kinds), namespace)}
    kept = {name: each for name, each in found.items() if name in wanted}
    for each in kept.values():
        each.pop("status", None)
        metadata = each["metadata"]
        metadata["managedFields"] = [field for field in metadata["managedFields"] if field.get("subresource") != "status"]
        if each["kind"] == "HorizontalPodAutoscaler":
            metadata.pop("resourceVersion")  # its status, which is in the same object, changes all the time
    return kept


def _resource(manifest: Manifest) -> str:
    """A kind's name for kubectl, with its group where it has one: other groups may have the same kind."""
    group, slash, version = manifest["apiVersion"].rpartition("/")
    return f"{manifest['kind']}.{version}.{group}" if slash else manifest["kind"]


def pods_by_component(cluster: ControlPlane, namespace: str) -> dict[str, set[str]]:
    """The pods' unique ids by the component that they are of."""
    found: dict[str, set[str]] = {}
    for pod in cluster.get("pods", namespace):
        found.setdefault(pod["metadata"]["labels"][COMPONENT], set()).add(pod["metadata"]["uid"])
    return found


def templates_by_component(cluster: ControlPlane, namespace: str) -> dict[str, set[str]]:
    """What the pods of each component were made from: digests of templates, and the names of jobs."""
    marks = ("pod-template-hash", "controller-revision-hash", "batch.kubernetes.io/job-name")
    found: dict[str, set[str]] = {}
    for pod in cluster.get("pods", namespace):
        labels = pod["metadata"]["labels"]
        found.setdefault(labels[COMPONENT], set()).update(labels[mark] for mark in marks if mark in labels)
    return found
