"""A stack's resources, to be broken: what edits of them have in common."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from policies.graph import Graph, from_manifests


class NotApplicableError(Exception):
    """The stack has nothing that this mutation could break."""


class Editor:
    """A copy of a graph's resources, to be broken. Every edit must find what it edits."""

    def __init__(self, graph: Graph) -> None:
        self.resources = [replace(each, inputs=copy.deepcopy(each.inputs)) for each in graph.resources]

    def graph(self) -> Graph:
        return Graph(self.resources)

    def find(self, kind: str, name: str = "") -> dict[str, Any]:
        """The inputs of the resource of a kind with this name, or else of the first one whose name begins so.

        The order of resources is that of their registration, which is another one each time.
        """
        of_kind = [each for each in self.resources if each.kind == kind and not each.type.startswith("superset-async:")]
        named = [(each.title.partition("/")[2], each.inputs) for each in of_kind]
        for whole in (True, False):
            for found, inputs in sorted(named, key=lambda each: each[0]):
                if found == name or (not whole and found.startswith(name)):
                    return inputs
        raise NotApplicableError(f"{kind} {name}")

    def drop(self, kind: str, name: str = "") -> None:
        self.find(kind, name)
        self.resources = [
            each for each in self.resources if not (each.kind == kind and each.title.partition("/")[2].startswith(name))
        ]

    def add(self, manifest: Mapping[str, Any]) -> None:
        labels = self.find("Namespace")["metadata"]["labels"]
        own = {f"app.kubernetes.io/{key}": "foreign" for key in ("name", "component")}
        metadata = {"namespace": "superset", "labels": {**labels, **own}, **manifest["metadata"]}
        self.resources.extend(from_manifests([{**manifest, "metadata": metadata}]).resources)

    def pod(self, kind: str, name: str = "") -> dict[str, Any]:
        return self.find(kind, name)["spec"]["template"]["spec"]

    def container(self, kind: str, name: str = "") -> dict[str, Any]:
        return self.pod(kind, name)["containers"][0]

    def argument(self, workload: str, option: str, value: str | None) -> None:
        """Give an option of a Deployment's command another value, or take it away."""
        command = self.container("Deployment", workload)["command"]
        place = next((place for place, word in enumerate(command) if word.startswith(f"{option}=")), None)
        if place is None:
            raise NotApplicableError(option)
        command[place : place + 1] = [] if value is None else [f"{option}={value}"]

    def topology(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the topology that the pods read."""
        data = self.find("ConfigMap", "superset-topology")["data"]
        content = json.loads(data["topology.json"])
        change(content)
        data["topology.json"] = json.dumps(content)

    def directive(self, server: str, name: str, value: str | None) -> None:
        """Change or remove a directive of a Redis server's configuration."""
        data = self.find("ConfigMap", f"{server}-config")["data"]
        lines = data["redis.conf"].splitlines()
        if not any(line.startswith(f"{name} ") for line in lines):
            raise NotApplicableError(name)
        kept = [line for line in lines if not line.startswith(f"{name} ")]
        data["redis.conf"] = "\n".join([*kept, *([] if value is None else [f"{name} {value}"])])


def set_at(target: Any, *path: Any) -> None:
    """Set the value at the end of `path` in plain data, making mappings on the way."""
    *steps, last, value = path
    for step in steps:
        target = target[step] if isinstance(step, int) else target.setdefault(step, {})
    target[last] = value
