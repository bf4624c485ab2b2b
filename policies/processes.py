"""Celery's processes, Superset's web processes and what scales them, as they are deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, cast

from policies.configurations import Configuration, readable
from policies.graph import Graph, Resource, at
from policies.workloads import Container, Workload, containers, workloads

#: What KEDA calls triggers that read a broker's lists.
REDIS_TRIGGERS = ("redis", "redis-sentinel", "redis-cluster", "redis-streams")


@dataclass(frozen=True, eq=False)
class CeleryProcess:
    """A Celery worker or beat in a container."""

    container: Container
    role: str
    #: The words after `worker` or `beat`, and before them.
    words: tuple[str, ...]
    configuration: Configuration | None

    @property
    def resource(self) -> Resource:
        """What its workload is registered as."""
        return self.container.resource

    @property
    def workload(self) -> Workload:
        """What makes its pods."""
        return self.container.workload

    @cached_property
    def queues(self) -> set[str]:
        """Queues that it listens to: those of its arguments, else all that are declared."""
        given = self.option("--queues", "-Q")
        if given:
            return {queue.strip() for queue in given.split(",")}
        return self.configuration.declared_queues if self.configuration else {"celery"}

    @property
    def concurrency(self) -> int | None:
        """Child processes of one worker; None where it follows the number of processors."""
        given = self.option("--concurrency", "-c") or self._setting("worker_concurrency")
        return int(given) if given else None

    @property
    def prefetch(self) -> int:
        """Messages that it holds for each child; Celery's default is 4."""
        return int(self.option("--prefetch-multiplier") or self._setting("worker_prefetch_multiplier") or 4)

    @property
    def child_memory(self) -> int | None:
        """Bytes of resident memory at which a child is replaced; None: never."""
        given = self.option("--max-memory-per-child") or self._setting("worker_max_memory_per_child")
        return int(given) * 1024 if given else None

    def option(self, *names: str) -> str | None:
        """The value of a command-line option in any of its spellings."""
        for place, word in enumerate(self.words):
            for name in names:
                if word == name and place + 1 < len(self.words):
                    return self.words[place + 1]
                if word.startswith(f"{name}="):
                    return word.partition("=")[2]
                if len(name) == 2 and word.startswith(name) and len(word) > 2:
                    return word[2:]
        return None

    def _setting(self, name: str) -> Any:
        return self.configuration.celery.get(name) if self.configuration else None


@dataclass(frozen=True, eq=False)
class Scaler:
    """A HorizontalPodAutoscaler or a KEDA ScaledObject."""

    resource: Resource

    @property
    def keda(self) -> bool:
        """Whether KEDA runs it."""
        return self.resource.kind == "ScaledObject"

    @property
    def target(self) -> tuple[str, str, Any]:
        """Namespace, kind and name of what it scales."""
        reference = self.resource.get("spec", "scaleTargetRef", default={})
        return self.resource.namespace, at(reference, "kind", default="Deployment"), at(reference, "name")

    @property
    def smallest(self) -> int:
        """Fewest pods."""
        key = "minReplicaCount" if self.keda else "minReplicas"
        return self.resource.get("spec", key, default=0 if self.keda else 1)

    @property
    def largest(self) -> int:
        """Most pods."""
        return self.resource.get("spec", "maxReplicaCount" if self.keda else "maxReplicas", default=100)

    @property
    def triggers(self) -> list[dict[str, Any]]:
        """KEDA's triggers."""
        return self.resource.get("spec", "triggers", default=[])

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """An HPA's metrics."""
        return self.resource.get("spec", "metrics", default=[])

    @property
    def watched(self) -> set[str]:
        """Which of the pods' own resources it scales on: `cpu`, `memory`."""
        found = {at(each, "type") for each in self.triggers} & {"cpu", "memory"}
        found |= {at(each, "resource", "name") for each in self.metrics if at(each, "type") == "Resource"}
        if self.resource.get("spec", "targetCPUUtilizationPercentage") is not None:
            found.add("cpu")
        return found

    @property
    def behavior(self) -> dict[str, Any]:
        """How fast it scales."""
        path = ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior") if self.keda else ("spec", "behavior")
        return self.resource.get(*path, default={})

    def workload(self, graph: Graph) -> Workload | None:
        """What it scales, where that is in the graph."""
        namespace, kind, name = self.target
        return next(
            (
                each
                for each in graph.derive(workloads)
                if each.kind == kind and each.resource.namespace == namespace and each.name == name
            ),
            None,
        )


def celery_processes(graph: Graph) -> list[CeleryProcess]:
    """Every container that runs a Celery worker or beat."""
    found: list[CeleryProcess] = []
    for container in graph.derive(containers):
        with graph.unless_unknown():
            for command in container.commands:
                names = [PurePosixPath(word).name for word in command]
                role = next((word for word in ("worker", "beat") if word in command), None)
                if "celery" in names and role and names.index("celery") < command.index(role):
                    found.append(CeleryProcess(container, role, tuple(command), configuration_of(container, graph)))
    return found


def celery_workers(graph: Graph) -> list[CeleryProcess]:
    """Every Celery worker."""
    return [each for each in graph.derive(celery_processes) if each.role == "worker"]


def beats(graph: Graph) -> list[CeleryProcess]:
    """Every Celery beat."""
    return [each for each in graph.derive(celery_processes) if each.role == "beat"]


def web_processes(graph: Graph) -> list[Container]:
    """Every container that serves Superset over HTTP."""
    found: list[Container] = []
    for container in graph.derive(containers):
        with graph.unless_unknown():
            names = {PurePosixPath(word).name for command in container.commands for word in command}
            if names & {"gunicorn", "run-server.sh"}:
                found.append(container)
    return found


def scalers(graph: Graph) -> list[Scaler]:
    """Everything that scales something."""
    return [Scaler(each) for each in graph.of_kind("HorizontalPodAutoscaler", "ScaledObject")]


def scaled(graph: Graph) -> dict[Any, list[Scaler]]:
    """The scalers of each target."""
    found: dict[Any, list[Scaler]] = {}
    for scaler in graph.derive(scalers):
        with graph.unless_unknown():
            found.setdefault(scaler.target, []).append(scaler)
    return found


def scalers_of(graph: Graph, workload: Workload) -> list[Scaler]:
    """The scalers of `workload`."""
    return graph.derive(scaled).get((workload.resource.namespace, workload.kind, workload.name), [])


def most_pods(graph: Graph, workload: Workload) -> int:
    """The most pods that `workload` can have at rest (a rolling update may add some)."""
    own = 1 if workload.replicas is None else workload.replicas
    return max([each.largest for each in scalers_of(graph, workload)], default=own)


def fewest_pods(graph: Graph, workload: Workload) -> int:
    """The fewest pods that `workload` has."""
    found = [each.smallest for each in scalers_of(graph, workload)]
    if found:
        return min(found)
    return 1 if workload.replicas is None else workload.replicas


def configuration_of(container: Container, graph: Graph) -> Configuration | None:
    """The settings that a container of Superset reads, where they are in the graph."""
    return next((each for each in graph.derive(readable) if container in each.readers), None)


def trigger_metadata(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """A KEDA trigger's metadata."""
    return cast("dict[str, Any]", at(trigger, "metadata", default={}))
