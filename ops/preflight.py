"""`superset-async preflight`: what a stack needs of the engine and of its cluster, asked before anything is made.

What was asked is plain data (`Facts`), and what follows from it is pure (`findings`): each finding has the command that mends it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console

from ops import registry
from ops.stack_cluster import INSTANCE, Cluster, Manifest, cluster_of
from policies.check import graph_of
from policies.graph import Graph, at
from topology import stack_file
from topology.model import Topology
from topology.plan import plan
from topology.quantities import parse_quantity

#: Versions of the API server: the oldest whose API suffices, and the newest that objects were applied to.
OLDEST, TESTED = (1, 28), (1, 37)
#: Definitions of others that a stack may use: the version that manifests are written in, and who brings them.
DEFINITIONS = {
    "keda.sh": ("v1alpha1", "KEDA 2", "https://keda.sh/docs/latest/deploy/"),
    "monitoring.coreos.com": (
        "v1",
        "the Prometheus operator",
        "https://prometheus-operator.dev/docs/getting-started/installation/",
    ),
    "postgresql.cnpg.io": ("v1", "CloudNativePG", "https://cloudnative-pg.io/documentation/current/installation_upgrade/"),
    "cert-manager.io": ("v1", "cert-manager", "https://cert-manager.io/docs/installation/"),
    "gateway.networking.k8s.io": ("v1", "Gateway API", "https://gateway-api.sigs.k8s.io/guides/"),
}
VERBS = ("get", "create", "patch", "delete")
#: Kinds of no namespace.
CLUSTER_WIDE = frozenset({"Namespace", "PriorityClass"})
POD_SECURITY = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True, order=True)
class Finding:
    """What stands in the way (`stop`), or may (`advice`), and what to do about it."""

    severity: Literal["stop", "advice"]
    what: str
    mend: str


@dataclass(frozen=True)
class Right:
    """Something that the engine has to be allowed, in the words of a SelfSubjectAccessReview."""

    verb: str
    group: str
    resource: str
    namespace: str


@dataclass(frozen=True)
class Facts:
    """What was found on this machine and on the cluster; None where it could not be asked."""

    #: Whether there is a `pulumi` on PATH; the answer to `pulumi whoami`, or why there is none.
    engine: bool = True
    login: str | None = None
    login_problem: str = ""
    #: Whether the stack's file has secrets under a passphrase, and whether one is given.
    needs_passphrase: bool = False
    has_passphrase: bool = False
    has_kubectl: bool = True
    #: (major, minor) of the API server; None: it does not answer, and `server_problem` says why.
    server: tuple[int, int] | None = None
    server_problem: str = ""
    where: str = ""
    #: The rights that were refused.
    refused: frozenset[Right] = frozenset()
    #: Served versions of custom resources, by group and plural.
    definitions: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict[tuple[str, str], tuple[str, ...]])
    storage_classes: Sequence[Manifest] = ()
    #: None: it is not there.
    namespace: Manifest | None = None
    quotas: Sequence[Manifest] = ()
    #: What registries give for images that the stack names by a tag alone.
    digests: Mapping[str, str] = field(default_factory=dict[str, str])


def findings(topology: Topology, graph: Graph, facts: Facts) -> list[Finding]:
    """Everything that keeps `topology`, whose resources are `graph`, from coming up, and what may; the worst first."""
    found = [*_engine(topology, facts), *_server(facts)]
    if facts.server is not None:
        for check in (_rights, _definitions, _storage, _namespace, _quota):
            found.extend(check(topology, graph, facts))
    found.extend(_images(topology))
    found.extend(_digests(topology, facts))
    return sorted(set(found), key=lambda each: (each.severity != "stop", each))


def _engine(topology: Topology, facts: Facts) -> Iterator[Finding]:
    if not facts.engine:
        yield Finding("stop", "there is no `pulumi` on PATH", "install it: https://www.pulumi.com/docs/install/")
    elif facts.login is None:
        yield Finding(
            "stop",
            f"the engine has no backend for its state: {facts.login_problem}",
            "pulumi login (Pulumi Cloud), or pulumi login s3://<bucket>, or pulumi login file://~/.pulumi-state",
        )
    if facts.needs_passphrase and not facts.has_passphrase:
        yield Finding(
            "stop",
            f"stacks/Pulumi.{topology.stack}.yaml has secrets under a passphrase, and none is given",
            "export PULUMI_CONFIG_PASSPHRASE_FILE=<file with the passphrase>",
        )


def _server(facts: Facts) -> Iterator[Finding]:
    if not facts.has_kubectl:
        yield Finding("stop", "there is no `kubectl` on PATH", "install it: https://kubernetes.io/docs/tasks/tools/")
    elif facts.server is None:
        yield Finding(
            "stop",
            f"no API server answers at {facts.where}: {facts.server_problem}",
            "export KUBECONFIG=<file>, or pulumi config set kubernetes:context <context> (kubectl config get-contexts)",
        )
    elif facts.server < OLDEST:
        yield Finding(
            "stop", f"the API server is {_dotted(facts.server)}; needed is {_dotted(OLDEST)}", "upgrade the cluster"
        )
    elif facts.server > TESTED:
        yield Finding(
            "advice",
            f"the API server is {_dotted(facts.server)}; the newest that was tried is {_dotted(TESTED)}",
            "make policy, and up on a cluster that nobody uses first",
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def rights(graph: Graph, namespace: str) -> list[Right]:
    """What the engine has to be allowed for the resources of `graph`."""
    kinds = {
        (resource.get("apiVersion").rpartition("/")[0], resource.kind)
        for resource in graph.resources
        if resource.is_kubernetes
    }
    return [
        Right(verb, group, plural(kind), "" if kind in CLUSTER_WIDE else namespace)
        for group, kind in sorted(kinds)
        for verb in VERBS
    ]


def plural(kind: str) -> str:
    """The resource's name of a kind, by the rule with which Kubernetes itself guesses it."""
    lower = kind.lower()
    if lower.endswith("s"):
        return f"{lower}es"
    return f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"


def _rights(topology: Topology, graph: Graph, facts: Facts) -> Iterator[Finding]:
    by_resource: dict[tuple[str, str, str], list[str]] = {}
    for right in sorted(facts.refused, key=lambda each: (each.group, each.resource, VERBS.index(each.verb))):
        by_resource.setdefault((right.group, right.resource, right.namespace), []).append(right.verb)
    for (group, resource, namespace), verbs in by_resource.items():
        where, kind = (f"in namespace {namespace}", "role") if namespace else ("in the cluster", "clusterrole")
        name = f"{resource}.{group}" if group else resource
        advice = resource == "namespaces" and topology.existing_namespace
        if not advice:
            scope = f" --namespace={namespace}" if namespace else ""
            instead = "; or, in a namespace that is there: superset-async:existing_namespace: true" * (
                resource == "namespaces"
            )
            yield Finding(
                "stop",
                f"you may not {', '.join(verbs)} {name} {where}",
                f"kubectl create {kind} superset-async-{resource} --verb={','.join(verbs)} --resource={name}{scope}, "
                f"and bind it to you: kubectl create {kind}binding --help{instead}",
            )


def _definitions(topology: Topology, graph: Graph, facts: Facts) -> Iterator[Finding]:
    for group, kind in sorted(custom_kinds(graph)):
        version, who, link = DEFINITIONS.get(group, ("", group, ""))
        served = facts.definitions.get((group, plural(kind)))
        if served is None:
            yield Finding("stop", f"the cluster has no {kind} ({group}), which is {who}'s", f"install {who}: {link}")
        elif version not in served:
            yield Finding(
                "stop",
                f"the cluster's {kind} ({group}) serves {', '.join(served)}, and manifests are written in {version}",
                f"install a version of {who} that serves {version}: {link}",
            )


def custom_kinds(graph: Graph) -> set[tuple[str, str]]:
    """Group and kind of every custom resource in `graph`."""
    found = ((each.get("apiVersion").rpartition("/")[0], each.kind) for each in graph.resources if each.is_kubernetes)
    return {(group, kind) for group, kind in found if group in DEFINITIONS}


def _storage(topology: Topology, graph: Graph, facts: Facts) -> Iterator[Finding]:
    classes = {each["metadata"]["name"]: each for each in facts.storage_classes}
    if topology.storage_class and topology.storage_class not in classes:
        yield Finding(
            "stop",
            f"there is no StorageClass {topology.storage_class}",
            f"superset-async:storage_class: one of {', '.join(sorted(classes)) or '(the cluster has none)'}",
        )
        return
    default = "storageclass.kubernetes.io/is-default-class"
    chosen = [
        each
        for name, each in classes.items()
        if name == topology.storage_class
        or (topology.storage_class is None and at(each, "metadata", "annotations", default, default="") == "true")
    ]
    if not chosen:
        yield Finding(
            "stop",
            "the cluster has no default StorageClass: claims would stay Pending",
            f"superset-async:storage_class: one of {', '.join(sorted(classes)) or '(the cluster has none)'}, or "
            f'kubectl annotate storageclass <name> {default}="true"',
        )
    for each in chosen:
        if not each.get("allowVolumeExpansion"):
            name = each["metadata"]["name"]
            yield Finding(
                "advice",
                f"StorageClass {name} expands no volume: volume_size is for ever",
                f"kubectl patch storageclass {name} --patch '{{\"allowVolumeExpansion\": true}}', where its driver can",
            )


def _namespace(topology: Topology, graph: Graph, facts: Facts) -> Iterator[Finding]:
    name, found = topology.namespace, facts.namespace
    if found is None:
        if topology.existing_namespace:
            yield Finding(
                "stop", f"there is no namespace {name}, which existing_namespace says", f"kubectl create namespace {name}"
            )
        return
    labels = labels_of(found)
    owner = labels.get(INSTANCE)
    if owner and owner != topology.stack:
        yield Finding(
            "stop", f"namespace {name} is the stack {owner}'s", "superset-async:namespace: another name in this stack's file"
        )
    elif not owner and not topology.existing_namespace:
        yield Finding(
            "stop",
            f"namespace {name} is there, and not this stack's",
            "superset-async:existing_namespace: true, which uses it as it is, or another name in superset-async:namespace",
        )
    if labels.get(POD_SECURITY) != "restricted":
        yield Finding(
            "advice",
            f"namespace {name} admits pods beyond Pod Security `restricted`",
            f"kubectl label namespace {name} {POD_SECURITY}=restricted",
        )


def _quota(topology: Topology, graph: Graph, facts: Facts) -> Iterator[Finding]:
    needed = requested(graph)
    for quota in facts.quotas:
        limits: dict[str, str] = at(quota, "status", "hard", default={})
        for key, hard in limits.items():
            resource = key.removeprefix("requests.")
            if resource not in needed:
                continue
            limit, used = (_amount(resource, each) for each in (hard, at(quota, "status", "used", key, default="0")))
            mine = 0 if owned(facts, topology) else used
            if mine + needed[resource] > limit:
                name = quota["metadata"]["name"]
                yield Finding(
                    "stop",
                    f"quota {name} allows {key} {hard}, and the first pods request {_readable(resource, needed[resource])}"
                    + (" beside what is used" if mine else ""),
                    f"kubectl --namespace {topology.namespace} edit resourcequota {name}, or lower the requests",
                )


def owned(facts: Facts, topology: Topology) -> bool:
    """Whether the namespace has this stack in it already: what is used there is its own."""
    return labels_of(facts.namespace).get(INSTANCE) == topology.stack


def labels_of(manifest: Manifest | None) -> dict[str, str]:
    """The labels of an object, of none where there is no object."""
    return at(manifest, "metadata", "labels", default={})


def _amount(resource: str, quantity: object) -> int:
    """CPU in thousandths, memory in bytes."""
    return int(parse_quantity(str(quantity)) * (1000 if resource == "cpu" else 1))


def _readable(resource: str, amount: int) -> str:
    return f"{amount}m" if resource == "cpu" else f"{amount // 2**20}Mi"


def requested(graph: Graph) -> dict[str, int]:
    """Requests of the first pods of all workloads: CPU in thousandths, memory in bytes. Scalers add theirs later."""
    total = {"cpu": 0, "memory": 0}
    for workload in graph.of_kind("Deployment", "StatefulSet", "Job"):
        replicas = workload.get("spec", "replicas", default=1)
        for container in workload.get("spec", "template", "spec", "containers", default=[]):
            requests = container.get("resources", {}).get("requests", {})
            total["cpu"] += replicas * _amount("cpu", requests.get("cpu", "0"))
            total["memory"] += replicas * _amount("memory", requests.get("memory", "0"))
    return total


def _images(topology: Topology) -> Iterator[Finding]:
    image = topology.images.superset
    first = image.split("/", 1)[0]
    if "/" not in image or not ("." in first or ":" in first or first == "localhost"):
        yield Finding(
            "advice",
            f"images.superset is {image}, without a registry: nodes would ask the public one, which has it not",
            f"make image STACK={topology.stack} IMAGE=<registry>/{image.rpartition('/')[2]}, push it, and set images.superset to "
            "that; or load it into every node",
        )


def tagged(topology: Topology) -> dict[str, str]:
    """The images that a stack of environment prod names without a digest, by their key."""
    if topology.environment != "prod":
        return {}
    server = topology.postgres.kind in ("statefulset", "cloudnativepg")
    ours = any(not instance.existing for instance in topology.redis) and topology.platform == "kubernetes"
    images = {
        "superset": topology.images.superset,
        **({"redis": topology.images.redis} if ours else {}),
        **({"postgres": topology.images.postgres} if server else {}),
    }
    return {f"images.{name}": image for name, image in images.items() if "@sha256:" not in image}


def _digests(topology: Topology, facts: Facts) -> Iterator[Finding]:
    for key, image in tagged(topology).items():
        digest = facts.digests.get(image)
        yield Finding(
            "advice",
            f"{key} is {image}, a tag that can be moved to another image",
            f"set {key} to {image}@{digest}"
            if digest
            else f"set {key} to {image}@sha256:…; no registry gave a digest (push it, log in; skopeo, crane or docker asks)",
        )


# Asking


def ask(topology: Topology, graph: Graph, *, environment: Mapping[str, str]) -> Facts:
    """The facts about this machine and the stack's cluster. Nothing is made or changed: reviews of rights are not stored."""
    engine = shutil.which("pulumi") is not None
    login, login_problem = _login(environment) if engine else (None, "")
    with cluster_of(topology.stack) as cluster:
        common: dict[str, Any] = {
            "engine": engine,
            "login": login,
            "login_problem": login_problem,
            "needs_passphrase": stack_file.holds_secrets(topology.stack),
            "has_passphrase": any(environment.get(f"PULUMI_CONFIG_PASSPHRASE{end}") is not None for end in ("", "_FILE")),
            "digests": registry.digests(tagged(topology).values()),
            "where": cluster.where,
        }
        if shutil.which("kubectl") is None:
            return Facts(**common, has_kubectl=False)
        answer = cluster.run("version", "--output=json")
        if answer.returncode:
            return Facts(**common, server_problem=_last_line(answer.stderr))
        version = json.loads(answer.stdout)["serverVersion"]
        namespaces = cluster.items("namespace", topology.namespace)
        return Facts(
            **common,
            server=(int(version["major"]), int(re.sub(r"\D", "", version["minor"]))),
            refused=_refused(cluster, rights(graph, topology.namespace)),
            definitions={
                (each["spec"]["group"], each["spec"]["names"]["plural"]): tuple(
                    served["name"] for served in each["spec"]["versions"] if served["served"]
                )
                for group, kind in sorted(custom_kinds(graph))
                for each in cluster.items("customresourcedefinition", f"{plural(kind)}.{group}")
            },
            storage_classes=cluster.items("storageclass"),
            namespace=namespaces[0] if namespaces else None,
            quotas=cluster.items("resourcequota", f"--namespace={topology.namespace}"),
        )


def _login(environment: Mapping[str, str]) -> tuple[str | None, str]:
    answer = subprocess.run(
        ["pulumi", "whoami", "--non-interactive"], capture_output=True, text=True, check=False, env=dict(environment)
    )
    return (None, _last_line(answer.stderr)) if answer.returncode else (answer.stdout.strip(), "")


def _refused(cluster: Cluster, wanted: Sequence[Right]) -> frozenset[Right]:
    """Those of `wanted` that the API server would refuse; nobody's where it takes no reviews."""
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "verb": right.verb,
                    "group": right.group,
                    "resource": right.resource,
                    **({"namespace": right.namespace} if right.namespace else {}),
                }
            },
        }
        for right in wanted
    ]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
    answer = cluster.run("create", "--filename=-", "--output=json", stdin=body)
    if answer.returncode:
        return frozenset()
    answers = documents(answer.stdout)
    return frozenset(right for right, each in zip(wanted, answers, strict=True) if not each["status"].get("allowed"))


def documents(text: str) -> list[Any]:
    """The JSON documents in `text`, one after the other: kubectl prints what it has created so."""
    decoder, found, rest = json.JSONDecoder(), list[Any](), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no answer"


def preflight(stack: str, out: Console) -> bool:
    """Print what stands in the way of `stack`; whether nothing stops it. StackError where its file has mistakes."""
    config = stack_file.read(stack)
    topology, graph = plan(stack, config), graph_of(stack, config)
    found = findings(topology, graph, ask(topology, graph, environment=os.environ))
    for each in found:
        out.print(f"{each.severity}: {each.what}\n    {each.mend}", markup=False, highlight=False, soft_wrap=True)
    stops = sum(each.severity == "stop" for each in found)
    summary = f"{stops} stop, {len(found) - stops} advise" if found else "nothing stands in its way"
    out.print(f"stack {stack}: {summary}", highlight=False)
    return stops == 0
