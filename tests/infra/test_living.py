"""A stack that lives, on the recorded graph: what follows on its last up, and what is kept whatever happens."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from infra import recording
from infra.recording import Recording, Resource
from topology import changes

ENTERPRISE: dict[str, Any] = {"platform": "kubernetes", "topology": "enterprise"}
MINIMAL: dict[str, Any] = {"platform": "kubernetes", "topology": "minimal"}
FIXED = {"scaling": None, "min_workers": 2, "max_workers": 2}


def named(recorded: Recording, kind: str, name: str) -> Resource:
    ours = (each for each in recorded.resources if each.custom and each.name == name)
    (found,) = (each for each in ours if each.type.rpartition(":")[2] == kind)
    return found


def record(config: dict[str, Any], before: Recording | None = None) -> Recording:
    return recording.record("lives", config, before=before)


def test_the_next_up_is_compared_with_the_last_one() -> None:
    last = record(MINIMAL)
    assert len(record(MINIMAL, last).resources) == len(last.resources)
    with pytest.raises(pulumi.RunError, match=r"postgres\.user = superset → reports") as caught:
        record({**MINIMAL, "postgres": {"user": "reports"}}, last)
    assert "nothing was started or changed" in str(caught.value)


def test_a_change_whose_steps_were_taken_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    last = record(MINIMAL)
    monkeypatch.setenv(changes.ACCEPT_ENV, "postgres.user")
    record({**MINIMAL, "postgres": {"user": "reports"}}, last)
    with pytest.raises(pulumi.RunError, match="accepts a change that this stack does not make"):
        record(MINIMAL, last)


def test_a_stack_without_an_up_is_compared_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(changes.ACCEPT_ENV, "postgres.user")
    assert record(MINIMAL).resources


def test_what_holds_data_is_protected_and_nothing_that_a_change_replaces() -> None:
    protected = {f"{each.type.rpartition(':')[2]}/{each.name}" for each in record(ENTERPRISE).resources if each.protect}
    assert protected == {
        "Namespace/namespace",
        "PersistentVolumeClaim/postgres-backup",
        "RandomPassword/superset-secret-key",
        "RandomPassword/superset-postgres",
        "RandomPassword/superset-admin",
    }


@pytest.mark.parametrize(
    ("urn", "kind", "name"),
    [
        (changes.NAMESPACE_URN, "Namespace", "namespace"),
        (changes.BACKUP_URN, "PersistentVolumeClaim", "postgres-backup"),
        (changes.ROLE_URN, "RandomPassword", "superset-postgres"),
    ],
)
def test_a_refusal_names_the_resource_as_the_engine_does(urn: str, kind: str, name: str) -> None:
    """The monitor of the recording writes no parents into a URN; the engine does."""
    recorded = record(ENTERPRISE)
    found = named(recorded, kind, name)
    (parent,) = (each for each in recorded.resources if each.urn == found.parent)
    assert urn.format(stack="lives") == f"urn:pulumi:lives::superset-async::{parent.type}${found.type}::{name}"


def test_a_namespace_that_is_somebody_elses_is_used_and_not_made() -> None:
    config = {**MINIMAL, "namespace": "shared", "existing_namespace": True}
    recorded = record(config)
    assert not recorded.of_kind("Namespace")
    namespaces = {manifest["metadata"].get("namespace") for manifest in recorded.manifests()}
    assert namespaces == {"shared"}
    assert recorded.outputs["namespace"] == "shared"


@pytest.mark.parametrize("deployment", ["web", "worker-default"])
def test_replicas_are_handed_over_to_a_scaler_and_taken_back(deployment: str) -> None:
    fixed = record({**ENTERPRISE, "workers": FIXED, "web": {"min_replicas": 2, "max_replicas": 2}})
    scaled, taken = named(record(ENTERPRISE), "Deployment", deployment), named(fixed, "Deployment", deployment)
    # Left as they are until the scaler decides, where a missing number would mean one.
    assert "replicas" not in scaled.inputs["spec"]
    assert scaled.ignore_changes == ("spec.replicas",)
    # Taken from the scaler, which owns the field, instead of a conflict.
    assert taken.inputs["spec"]["replicas"] == 2
    assert taken.ignore_changes == ()
    force = "pulumi.com/patchForce"
    assert taken.inputs["metadata"]["annotations"][force] == "true"
    assert force not in scaled.inputs["metadata"].get("annotations", {})


def test_labels_change_no_pod_of_a_data_store() -> None:
    def templates(labels: dict[str, str]) -> dict[str, Any]:
        return record({**ENTERPRISE, "labels": labels}).of_kind("StatefulSet")

    plain, labelled = templates({}), templates({"team": "data"})
    assert len(plain) >= 4
    for name, manifest in labelled.items():
        assert manifest["spec"] == plain[name]["spec"]
        assert manifest["metadata"]["labels"]["team"] == "data"
