"""Rules about pods: what image, with which rights and resources, and how they survive a node being drained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.configurations import is_production, readable
from policies.graph import Graph, at
from policies.processes import fewest_pods, most_pods
from policies.rule import Option, Options, Plain, Rules, kinds
from policies.workloads import KINDS, LASTING, Container, Workload, containers, lasting, selects, services_of, workloads

RULES = Rules("policy-pods")
_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "name"}
)


@RULES.rule(
    "pods-image-tag",
    containers,
    fix="Name a version or a digest",
    runbook="images",
    alone=True,
)
def image_tag(container: Container, graph: Graph, options: Options) -> Iterator[str]:
    """An image without a tag or digest, or with latest, is another one tomorrow."""
    name = container.image.rpartition("/")[2]
    if "@sha256:" not in name and (":" not in name or name.endswith(":latest")):
        yield f"container {container.name} runs {container.image!r}"


def _images_of_production(graph: Graph) -> list[Container]:
    """The first container of each image, where the stack is in environment prod."""
    if not graph.derive(is_production):
        return []
    first: dict[str, Container] = {}
    for container in graph.derive(containers):
        with graph.unless_unknown():
            first.setdefault(str(container.image), container)
    return list(first.values())


@RULES.rule(
    "pods-image-digest",
    _images_of_production,
    # A digest is a registry's, and known only when the image has been pushed to it.
    severity="advisory",
    fix="Name the image as repository:tag@sha256:…; make preflight says the digests that registries give",
    runbook="images",
)
def image_digest(container: Container, graph: Graph, options: Options) -> Iterator[str]:
    """A tag can be moved to another image: in environment prod a digest says which one runs."""
    if "@sha256:" not in container.image:
        yield f"container {container.name} runs {container.image!r}"


@RULES.rule(
    "pods-restricted",
    containers,
    fix="Run as a user other than root, without privileges or capabilities, under the runtime's seccomp profile",
    runbook="security",
    alone=True,
)
def restricted(container: Container, graph: Graph, options: Options) -> Iterator[str]:
    """Pod Security restricted keeps a broken-into container from becoming the node."""
    pod, own = at(container.workload.pod, "securityContext", default={}), at(container.spec, "securityContext", default={})
    either = {**pod, **own}
    capabilities = at(own, "capabilities", default={})
    wrong = [
        ("runs as root", at(either, "runAsNonRoot") is not True or at(either, "runAsUser") == 0),
        ("is privileged", at(own, "privileged") is True),
        ("may gain privileges", at(own, "allowPrivilegeEscalation") is not False),
        ("keeps capabilities", "ALL" not in at(capabilities, "drop", default=[])),
        ("adds capabilities", bool(set(at(capabilities, "add", default=[])) - {"NET_BIND_SERVICE"})),
        ("has no seccomp profile", at(either, "seccompProfile", "type") not in ("RuntimeDefault", "Localhost")),
        ("takes a port of the node", any(at(each, "hostPort") for each in at(container.spec, "ports", default=[]))),
    ]
    found = [what for what, is_so in wrong if is_so]
    if found:
        yield f"container {container.name} {', '.join(found)}"


@RULES.rule(
    "pods-host-access",
    workloads,
    fix="Remove hostNetwork, hostPID, hostIPC and hostPath volumes",
    runbook="security",
    alone=True,
)
def host_access(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """A pod that shares the node's network, processes or files is outside of every other rule."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if at(workload.pod, key)]
    for volume in at(workload.pod, "volumes", default=[]):
        found += sorted(set(volume) - _VOLUMES)
    if found:
        yield f"uses {', '.join(found)}"


@RULES.rule(
    "pods-resources",
    containers,
    fix="Set requests of CPU and memory and a limit of memory, each request within its limit",
    runbook="resources",
    alone=True,
)
def resources(container: Container, graph: Graph, options: Options) -> Iterator[str]:
    """Without requests the scheduler overfills nodes; without a memory limit one pod takes its neighbours with it."""
    missing = [
        f"{of}.{what}"
        for of, what in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
        if not container.quantity(of, what)
    ]
    if missing:
        yield f"container {container.name} has no {', '.join(missing)}"
    for what in ("cpu", "memory"):
        request, limit = container.quantity("requests", what), container.quantity("limits", what)
        if request and limit and request > limit:
            yield f"container {container.name} requests more {what} than its limit"


@RULES.rule(
    "pods-token",
    workloads,
    severity="advisory",
    fix="Set automountServiceAccountToken false on the pod",
    runbook="security",
    alone=True,
    options={"allowed": Option([], "names of workloads that need a token")},
)
def token(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """Nothing here talks to the API server: a mounted token serves only who breaks in."""
    if at(workload.pod, "automountServiceAccountToken") is not False and workload.name not in options["allowed"]:
        yield "mounts a token of the API server"


@RULES.rule(
    "pods-service-links",
    workloads,
    severity="advisory",
    fix="Set enableServiceLinks false on the pod",
    runbook="security",
    alone=True,
)
def service_links(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """A Service named redis makes REDIS_PORT a URL in every pod, which some images read as a number."""
    if at(workload.pod, "enableServiceLinks") is not False:
        yield "has every Service of its namespace as environment variables"


@RULES.rule(
    "pods-budget-missing",
    lasting,
    fix="Add a PodDisruptionBudget with maxUnavailable 1",
    runbook="drains",
)
def budget_missing(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """Without a disruption budget draining nodes may stop every pod of a tier at once."""
    if most_pods(graph, workload) > 1 and not _budgets(graph, workload):
        yield f"can have {most_pods(graph, workload)} pods and has no disruption budget"


@RULES.rule(
    "pods-budget-blocks",
    lasting,
    fix="Use one budget with maxUnavailable 1, and none for a single pod",
    runbook="drains",
)
def budget_blocks(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """A budget that allows no disruption stops every drain, and with it the cluster's upgrades."""
    budgets = _budgets(graph, workload)
    pods = fewest_pods(graph, workload)
    if len(budgets) > 1:
        yield f"has {len(budgets)} budgets, and the eviction of a pod with two is refused"
    for budget in budgets:
        least, most = budget.get("spec", "minAvailable"), budget.get("spec", "maxUnavailable")
        if most is not None and _count(most, pods) < 1:
            yield f"{budget.resource.title} allows none of {pods} pods to go"
        if least is not None and _count(least, pods, up=True) >= pods:
            yield f"{budget.resource.title} keeps {least} of {pods} pods"


@RULES.rule(
    "pods-budget-unhealthy",
    kinds("PodDisruptionBudget"),
    severity="advisory",
    fix="Set unhealthyPodEvictionPolicy AlwaysAllow",
    runbook="drains",
    alone=True,
)
def budget_unhealthy(budget: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """By default pods that never become ready block a drain as well."""
    if budget.get("spec", "unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "lets pods that are not ready block a drain"


def _budgets(graph: Graph, workload: Workload) -> list[Plain]:
    return [
        Plain(each)
        for each in graph.of_kind("PodDisruptionBudget")
        if each.namespace == workload.resource.namespace
        and selects(each.get("spec", "selector", default={}), workload.labels)
    ]


def _count(value: Any, pods: int, *, up: bool = False) -> int:
    """A number of pods, or a percentage of them as Kubernetes rounds it: up."""
    if isinstance(value, str) and value.endswith("%"):
        return -(-pods * int(value[:-1]) // 100)
    return int(value)


@RULES.rule(
    "pods-readiness",
    lasting,
    fix="Give the container that serves a readinessProbe",
    runbook="drains",
)
def readiness(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """A Service sends requests to pods that cannot answer yet, and a roll-out calls them done."""
    serving = [each for each in workload.containers if not each.prepares and at(each.spec, "ports", default=[])]
    for container in serving if services_of(graph, workload) else []:
        if at(container.spec, "readinessProbe") is None:
            yield f"container {container.name} is behind a Service and has no readinessProbe"


@RULES.rule(
    "pods-selector",
    lasting,
    fix="Make spec.selector a part of the template's labels",
    runbook="labels",
    alone=True,
)
def selector(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """A selector that does not match the pod's own labels is refused by the API server."""
    wanted = workload.resource.get("spec", "selector", default={})
    if not at(wanted, "matchLabels") and not at(wanted, "matchExpressions"):
        yield "selects every pod"
    elif not selects(wanted, workload.labels):
        yield "selects other labels than its pods have"


@RULES.rule(
    "pods-namespace",
    kinds("Namespace"),
    fix="Label it pod-security.kubernetes.io/enforce: restricted",
    runbook="security",
    alone=True,
)
def namespace(found: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """The API server refuses pods that are not restricted only where the namespace says so."""
    level = found.get("metadata", "labels", "pod-security.kubernetes.io/enforce")
    if level != "restricted":
        yield f"enforces Pod Security {level or 'nothing'}"


@RULES.rule(
    "pods-namespace-missing",
    workloads,
    severity="advisory",
    fix="Put them in a namespace that this stack makes",
    runbook="security",
)
def namespace_missing(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """Pods outside of the stack's own namespaces have no Pod Security, no default deny and no quota."""
    made = {each.object_name for each in graph.of_kind("Namespace")}
    if (
        workload.resource.namespace not in made
        and at(workload.resource.inputs, "metadata", "namespace", default="") is not None
    ):
        known = workload.resource.get("metadata", "namespace", default="default")
        if str(known):
            yield f"is in namespace {known}, which this stack does not make"


@RULES.rule(
    "pods-labels",
    kinds(*KINDS, "Service", "ConfigMap", "Secret", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject"),
    fix="Set the labels that the rule's option names",
    runbook="labels",
    alone=True,
    options={
        "required": Option(
            [
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
                "app.kubernetes.io/part-of",
                "app.kubernetes.io/managed-by",
            ],
            "labels that every object needs",
        )
    },
)
def labels(found: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Cost, ownership and clean-up go by labels."""
    missing = [key for key in options["required"] if key not in found.get("metadata", "labels", default={})]
    if missing:
        yield f"has no label {', '.join(missing)}"


@RULES.rule(
    "pods-one-writer",
    lasting,
    fix="Use a StatefulSet with a claim template, or strategy Recreate",
    runbook="storage",
    loses_data=True,
)
def one_writer(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """Two pods of a rolling Deployment on one ReadWriteOnce volume wait for each other, or corrupt it."""
    if workload.kind not in LASTING or workload.kind == "StatefulSet":
        return
    shared = {
        found.topology.caching.spill.claim
        for found in graph.derive(readable)
        if found.topology and found.topology.caching.spill
    }
    volumes = at(workload.pod, "volumes", default=[])
    claims = [at(each, "persistentVolumeClaim", "claimName") for each in volumes if at(each, "persistentVolumeClaim")]
    # The volume of large results is many pods' by its nature, and the stack asks for a claim that is.
    if set(claims) - shared and workload.resource.get("spec", "strategy", "type") != "Recreate":
        yield "rolls with a claimed volume"
