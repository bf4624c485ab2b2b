"""`superset-async recover`: what an `up` that was killed leaves behind, put in order so that the next one goes on.

The engine leaves a lock, and creations of which it does not know whether they took place. It would try those again, and the
cluster would say that the object is there. The cluster knows: what it has of them is taken into the state, the rest is
forgotten.

The engine's own way, `pulumi refresh --import-pending-creates`, forgets them all (read and tried with 3.259): they are moved
among the state's resources instead, as the engine writes them when a creation ends, and a refresh reads what they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ops.engine import Resource, StepError
from ops.stack_cluster import INSTANCE, Cluster
from topology.stack_file import PROJECT_NAME


@dataclass(frozen=True)
class Begun:
    """A creation of which the engine does not know whether it took place."""

    urn: str
    #: Of an object of Kubernetes; None: nothing outside of the engine's state has it, as a generated password.
    manifest: Mapping[str, Any] | None

    @property
    def names(self) -> dict[str, str]:
        """Its name, and its namespace where it has one."""
        metadata = cast("dict[str, str]", (self.manifest or {})["metadata"])
        return {key: metadata[key] for key in ("namespace", "name") if metadata.get(key)}

    @property
    def id(self) -> str:
        """How the provider of Kubernetes calls the object."""
        return _id(self.names)

    @property
    def key(self) -> tuple[str, str]:
        """Kind and id: what tells it from the others of its stack."""
        return str((self.manifest or {})["kind"]), self.id

    def __str__(self) -> str:
        """Kind and name, for a message."""
        return " ".join(self.key) if self.manifest else self.urn.rpartition("::")[2]


def _id(metadata: Mapping[str, str]) -> str:
    return "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)


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
    asked = [each for each in creations if each.manifest]
    if not asked:
        return []
    names = [{**(each.manifest or {}), "metadata": each.names} for each in asked]
    answer = cluster.run(
        "get",
        "--filename=-",
        "--output=json",
        "--ignore-not-found",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": names}),
    )
    if answer.returncode:
        raise StepError(f"{cluster.where} does not say what is there of {len(asked)} objects: {answer.stderr.strip()}")
    printed = json.loads(answer.stdout or "{}")
    # Of one object kubectl may print that object, or a list of it.
    objects = printed.get("items", [printed] if "metadata" in printed else [])
    there = {(str(each["kind"]), _id(each["metadata"])): each["metadata"].get("labels", {}) for each in objects}
    found = [each for each in asked if each.key in there]
    foreign = [each for each in found if there[each.key].get(INSTANCE) != stack]
    if foreign:
        raise StepError(
            f"{', '.join(map(str, foreign))}: there, and without the label {INSTANCE}={stack}. make preflight STACK={stack} says "
            "what to do. Nothing was changed but the lock"
        )
    return found


def way_out(error: StepError, stack: str) -> StepError:
    """What to do where the engine's own state cannot be read: it was being written when the engine was killed."""
    if "failed to load checkpoint" not in str(error):
        return error
    file = f".pulumi/stacks/{PROJECT_NAME}/{stack}.json"
    return StepError(
        f"{error}\nThe state was being written when the engine was killed. Put the one before it back, and do this again: of "
        f"`pulumi login file://FOLDER` it is FOLDER/{file}.bak, to be copied to {stack}.json beside it; a bucket with versions "
        "has it as the former version. Where the next up then says `already exists`: "
        f"PULUMI_K8S_UPSERT_EXISTING_OBJECTS=true pulumi up --stack {stack}, once"
    )


def settled(deployment: Mapping[str, Any], found: Sequence[Begun]) -> dict[str, Any]:
    """The state with `found` among its resources and nothing begun any more. They come last: all that they need is there."""
    ids = {each.urn: each.id for each in found}
    operations = cast("list[dict[str, Resource]]", deployment.get("pending_operations") or [])
    taken: list[Resource] = [
        {**resource, "id": ids[resource["urn"]], "outputs": resource.get("inputs") or {}}
        for resource in (each["resource"] for each in operations)
        if resource["urn"] in ids
    ]
    return {**deployment, "resources": [*(deployment.get("resources") or []), *taken], "pending_operations": []}


def unlocked(stack: str) -> list[str]:
    """The command that ends the killed update's hold on the state."""
    return ["pulumi", "cancel", "--stack", stack, "--yes"]


def refreshed(stack: str) -> list[str]:
    """The command that asks the cluster how everything in the state is."""
    return ["pulumi", "refresh", "--stack", stack, "--yes", "--skip-preview"]
