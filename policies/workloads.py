"""Pods, their containers and what those read, whoever wrote them: Deployments, StatefulSets, Jobs and the rest."""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from policies.graph import UNKNOWN, Graph, Resource, UnknownValueError, at, maybe
from topology.quantities import parse_quantity

KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod")
#: Kinds whose pods stay, and so can be drained, selected by Services and scaled.
LASTING = ("Deployment", "StatefulSet", "ReplicaSet")
_SHELLS = frozenset({"sh", "bash", "ash", "dash"})
_SEPARATOR = re.compile(r"&&|\|\||[;\n|&]")


@dataclass(frozen=True, eq=False)
class Workload:
    """Something that makes pods."""

    resource: Resource

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.resource.kind

    @property
    def name(self) -> str:
        """Its own name, which others refer to."""
        return self.resource.object_name

    @cached_property
    def template(self) -> dict[str, Any]:
        """Metadata and spec of its pods."""
        path = {"Pod": (), "CronJob": ("spec", "jobTemplate", "spec", "template")}.get(self.kind, ("spec", "template"))
        return self.resource.get(*path, default={})

    @property
    def pod(self) -> dict[str, Any]:
        """Spec of its pods."""
        return at(self.template, "spec", default={})

    @property
    def labels(self) -> dict[str, Any]:
        """Labels of its pods."""
        return at(self.template, "metadata", "labels", default={})

    @property
    def replicas(self) -> int | None:
        """What its own spec says; None where it leaves that to a scaler, or to the default of 1."""
        return self.resource.get("spec", "replicas")

    @cached_property
    def containers(self) -> list[Container]:
        """Every container of its pods, those that prepare them first."""
        return [
            Container(self, at(specs, place), key == "initContainers")
            for key in ("initContainers", "containers")
            for specs in [at(self.pod, key, default=[])]
            for place in range(len(specs))
        ]

    def volume(self, name: str) -> dict[str, Any]:
        """The volume of that name: of the pod, or made from a claim template (as `{"claim": <template>}`)."""
        for claim in self.resource.get("spec", "volumeClaimTemplates", default=[]):
            if at(claim, "metadata", "name") == name:
                return {"claim": claim}
        volumes: list[dict[str, Any]] = at(self.pod, "volumes", default=[])
        return next((each for each in volumes if at(each, "name") == name), dict[str, Any]())


@dataclass(frozen=True, eq=False)
class Container:
    """One container of a workload's pods."""

    workload: Workload
    spec: dict[str, Any]
    prepares: bool

    @property
    def resource(self) -> Resource:
        """What its workload is registered as."""
        return self.workload.resource

    @property
    def name(self) -> str:
        """Its name in the pod."""
        return at(self.spec, "name", default="?")

    @property
    def image(self) -> str:
        """Its image, with tag or digest."""
        return at(self.spec, "image", default="")

    @cached_property
    def arguments(self) -> list[str]:
        """Command and arguments, as they are given."""
        return [*at(self.spec, "command", default=[]), *at(self.spec, "args", default=[])]

    @cached_property
    def commands(self) -> list[list[str]]:
        """The commands that it runs, a shell's text taken apart into its own."""
        arguments = self.arguments
        if any(each is UNKNOWN for each in arguments):
            raise UnknownValueError
        if not self.in_shell:
            return [arguments] if arguments else []
        text = arguments[arguments.index("-c") + 1] if "-c" in arguments[:-1] else ""
        return [words for part in _SEPARATOR.split(text) if (words := _words(part))]

    @property
    def in_shell(self) -> bool:
        """Whether it starts a shell with a text to run."""
        arguments = self.arguments
        return bool(arguments) and PurePosixPath(arguments[0]).name in _SHELLS and "-c" in arguments

    def quantity(self, of: str, what: str) -> int | None:
        """Its `requests` or `limits` of `cpu` (millicores) or `memory` (bytes); None where it has none."""
        found = at(self.spec, "resources", of, what)
        return None if found is None else round(parse_quantity(found) * (1000 if what == "cpu" else 1))

    def environment(self, graph: Graph) -> dict[str, Any]:
        """Its variables with their values, also those from ConfigMaps and Secrets of the graph; UNKNOWN for any other."""
        found: dict[str, Any] = {}
        for source in at(self.spec, "envFrom", default=[]):
            prefix = at(source, "prefix", default="")
            for key in ("configMapRef", "secretRef"):
                name = at(source, key, "name")
                if name is not None:
                    data = data_of(graph, _KIND[key], self.resource.namespace, name)
                    found |= {f"{prefix}{inner}": value for inner, value in data.items()}
        for variable in at(self.spec, "env", default=[]):
            found[at(variable, "name", default="?")] = self._value(graph, variable)
        return found

    def _value(self, graph: Graph, variable: Any) -> Any:
        for key in ("configMapKeyRef", "secretKeyRef"):
            reference = at(variable, "valueFrom", key)
            if reference is not None:
                try:
                    data = data_of(graph, _KIND[key], self.resource.namespace, at(reference, "name"))
                    return data.get(at(reference, "key"), UNKNOWN)
                except UnknownValueError:
                    return UNKNOWN
        if at(variable, "valueFrom") is not None:
            return UNKNOWN
        value = maybe(variable, "value")
        return "" if value is None else value

    def mount(self, path: str) -> dict[str, Any]:
        """The volume in which `path` lies; empty where it lies in the container's own file system."""
        target = PurePosixPath(path)
        best: tuple[int, dict[str, Any]] = (-1, {})
        for mount in at(self.spec, "volumeMounts", default=[]):
            where = PurePosixPath(at(mount, "mountPath", default=""))
            if target == where or where in target.parents:
                best = max(best, (len(where.parts), self.workload.volume(at(mount, "name"))), key=lambda each: each[0])
        return best[1]

    def files(self, graph: Graph) -> Iterator[tuple[str, Resource, Any]]:
        """Every file that it gets from a ConfigMap or Secret of the graph: path, the object, text (perhaps UNKNOWN)."""
        for mount in at(self.spec, "volumeMounts", default=[]):
            volume = self.workload.volume(at(mount, "name"))
            sources = [volume, *at(volume, "projected", "sources", default=[])]
            for source in sources:
                for key, name_key in (("configMap", "name"), ("secret", "secretName"), ("secret", "name")):
                    name = at(source, key, name_key)
                    found = None if name is None else _object(graph, _KIND[key], self.resource.namespace, name)
                    if found is None:
                        continue
                    items = {at(item, "key"): at(item, "path") for item in at(source, key, "items", default=[])}
                    try:
                        data = _data(found)
                    except UnknownValueError:
                        if not items:
                            raise
                        data = dict.fromkeys(items, UNKNOWN)
                    for file, text in data.items():
                        if not items or file in items:
                            yield f"{at(mount, 'mountPath')}/{items.get(file, file)}", found, text


_KIND = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMap": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
    "secret": "Secret",
}


def workloads(graph: Graph) -> list[Workload]:
    """Everything that makes pods."""
    return [Workload(each) for each in graph.of_kind(*KINDS)]


def lasting(graph: Graph) -> list[Workload]:
    """Workloads whose pods stay."""
    return [each for each in graph.derive(workloads) if each.kind in LASTING]


def containers(graph: Graph) -> list[Container]:
    """Every container of every workload whose containers are known."""
    found: list[Container] = []
    for workload in graph.derive(workloads):
        with graph.unless_unknown():
            found.extend(workload.containers)
    return found


def selects(selector: Any, labels: Mapping[str, Any]) -> bool:
    """Whether a label selector picks pods with `labels`; an empty one picks all."""
    for key, value in at(selector, "matchLabels", default={}).items():
        if labels.get(key) != value:
            return False
    for expression in at(selector, "matchExpressions", default=[]):
        key, values = at(expression, "key"), at(expression, "values", default=[])
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds.get(at(expression, "operator"), False):
            return False
    return True


def services_of(graph: Graph, workload: Workload) -> list[Resource]:
    """The Services that are known to pick the pods of `workload`."""
    found: list[Resource] = []
    for each in graph.of_kind("Service"):
        with suppress(UnknownValueError):
            match = each.get("spec", "selector", default={})
            if match and each.namespace == workload.resource.namespace and selects({"matchLabels": match}, workload.labels):
                found.append(each)
    return found


def data_of(graph: Graph, kind: str, namespace: str, name: Any) -> dict[str, Any]:
    """The decoded data of a ConfigMap or Secret in the graph; empty where it is not there."""
    found = _object(graph, kind, namespace, name)
    return {} if found is None else _data(found)


def _object(graph: Graph, kind: str, namespace: str, name: Any) -> Resource | None:
    if name is UNKNOWN:
        return None
    return graph.derive(_objects).get((kind, namespace, name))


def _objects(graph: Graph) -> dict[tuple[str, str, str], Resource]:
    return {(each.kind, each.namespace, each.object_name): each for each in graph.of_kind("ConfigMap", "Secret")}


def _data(found: Resource) -> dict[str, Any]:
    data = found.get("data", default={})
    texts = {key: _decoded(value) for key, value in data.items()} if found.kind == "Secret" else dict(data)
    return {**texts, **found.get("stringData", default={})}


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return UNKNOWN


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
