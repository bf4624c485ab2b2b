"""`superset-async recover`: what an `up` that was killed leaves behind, put in order so that the next one goes on.

The engine leaves a lock, and creations of which it does not know whether they took place. It would try those again, and the
cluster would say that the object is there. The cluster knows: what it has of them is taken into the state, the rest is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ops.engine import Resource, StepError
from ops.stack_cluster import INSTANCE, Cluster


@dataclass(frozen=True)
class Begun:
    """A creation of which the engine does not know whether it took place."""

    urn: str
    #: Of an object of Kubernetes; None: nothing outside of the engine's state has it, as a generated password.
    manifest: Mapping[str, Any] | None

    @property
    def id(self) -> str:
        """How the provider of Kubernetes calls the object: its name, after its namespace where it has one."""
        metadata = cast("dict[str, str]", (self.manifest or {})["metadata"])
        return "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)

    def __str__(self) -> str:
        """Kind and name, for a message."""
        return f"{self.manifest['kind']} {self.id}" if self.manifest else self.urn.rpartition("::")[2]


def begun(deployment: Mapping[str, Any]) -> Iterator[Begun]:
    """The creations that the state has as begun."""
    for operation in cast("list[dict[str, Any]]", deployment.get("pending_operations") or []):
        resource = cast("Resource", operation["resource"])
        if operation["type"] == "creating":
            inputs = cast("dict[str, Any]", resource.get("inputs") or {})
            is_object = str(resource["type"]).startswith("kubernetes:")
            what = {key: inputs[key] for key in ("apiVersion", "kind", "metadata")} if is_object else None
            yield Begun(str(resource["urn"]), what)


def on_cluster(cluster: Cluster, stack: str, creations: Sequence[Begun]) -> list[Begun]:
    """Those of `creations` that took place; StepError where the cluster does not say, or has another's object of that name."""
    found: list[Begun] = []
    for each in creations:
        if each.manifest is None:
            continue
        names = {key: each.manifest["metadata"][key] for key in ("name", "namespace") if key in each.manifest["metadata"]}
        answer = cluster.run(
            "get",
            "--filename=-",
            "--output=json",
            "--ignore-not-found",
            stdin=json.dumps({**each.manifest, "metadata": names}),
        )
        if answer.returncode:
            raise StepError(f"{cluster.where} does not say whether {each} is there: {answer.stderr.strip()}")
        there = json.loads(answer.stdout or "null")
        # Of what it does not find in a file, kubectl prints a list of nothing.
        if there is None or there["kind"] == "List":
            continue
        owner = there["metadata"].get("labels", {}).get(INSTANCE)
        if owner != stack:
            whose = f"stack {owner}'s" if owner else "nobody's that says so"
            raise StepError(
                f"{each} is there, and is {whose}: make preflight STACK={stack} says what to do. Nothing was changed but the lock"
            )
        found.append(each)
    return found


def unlocked(stack: str) -> list[str]:
    """The command that ends the killed update's hold on the state."""
    return ["pulumi", "cancel", "--stack", stack, "--yes"]


def refreshed(stack: str, found: Sequence[Begun]) -> list[str]:
    """The command that takes `found` into the state, forgets the other creations, and asks the cluster how all the rest is."""
    pairs = [f"--import-pending-creates={part}" for each in found for part in (each.urn, each.id)]
    return ["pulumi", "refresh", "--stack", stack, "--yes", "--clear-pending-creates", *pairs]
