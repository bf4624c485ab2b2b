"""`superset-async recover`: what the cluster has of the creations that were begun, and what is said where it does not say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops import recover
from ops.cli import app
from ops.engine import StepError
from ops.stack_cluster import Cluster
from topology import stack_file

URN = "urn:pulumi:mine::superset-async::superset-async:web:WebTier$kubernetes:apps/v1:Deployment::web"


def operation(kind: str = "creating", **more: Any) -> dict[str, Any]:
    inputs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "superset", "labels": {}},
        "spec": {},
    }
    return {"type": kind, "resource": {"urn": URN, "type": "kubernetes:apps/v1:Deployment", "inputs": inputs} | more}


ROOT = {"urn": "urn::mine::x::pulumi:pulumi:Stack::mine", "type": "pulumi:pulumi:Stack"}
PASSWORD = operation(
    type="random:index/randomPassword:RandomPassword",
    urn="urn::mine::x::RandomPassword::superset-jwt",
    inputs={"length": 32},
)


def test_only_creations_are_looked_for() -> None:
    deployment = {"pending_operations": [operation(), operation("updating"), operation("deleting"), PASSWORD]}
    assert [str(each) for each in recover.begun(deployment)] == ["Deployment superset/web", "superset-jwt"]
    assert list(recover.begun({})) == []


def test_an_object_of_no_namespace_is_called_by_its_name() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "superset"}}
    (each,) = recover.begun({"pending_operations": [operation(type="kubernetes:core/v1:Namespace", inputs=namespace)]})
    assert each.id == "superset"


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine and kubectl: they write down how they were called, and answer what files say."""
    state = {"version": 3, "deployment": {"resources": [ROOT], "pending_operations": [operation(), PASSWORD]}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    # As kubectl prints what it does not find.
    (tmp_path / "object.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": []}))
    (tmp_path / "Pulumi.mine.yaml").write_text("config: {}\n")
    for name in ("pulumi", "kubectl"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho {name} "$*" >> {tmp_path}/calls\n'
            f'[ "$1 $2" = "stack export" ] && exec cat {tmp_path}/state.json\n'
            f'[ "$1 $2" = "stack import" ] && exec cat > {tmp_path}/imported.json\n'
            f'[ "{name}" = kubectl ] && [ -e {tmp_path}/away ] && echo refused >&2 && exit 1\n'
            f'[ "{name}" = kubectl ] && exec cat {tmp_path}/object.json\n'
            "exit 0\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def listed(labels: dict[str, str]) -> str:
    """What kubectl prints of the Deployment with these labels: a list of one."""
    found = {"kind": "Deployment", "metadata": {"name": "web", "namespace": "superset", "labels": labels}}
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [found]})


def steps(folder: Path) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if line.startswith("pulumi")]


def test_what_was_made_is_taken_into_the_state_and_the_rest_is_forgotten(stand_ins: Path) -> None:
    (stand_ins / "object.json").write_text(listed({"app.kubernetes.io/instance": "mine"}))
    done = CliRunner().invoke(app, ["recover", "--stack", "mine", "--yes"])
    assert done.exit_code == 0, done.output
    assert "Deployment superset/web: is there" in done.output
    assert "superset-jwt: was not made" in done.output
    assert [step.split(" --stack")[0] for step in steps(stand_ins)] == [
        "pulumi cancel",
        "pulumi stack export",
        "pulumi stack import",
        "pulumi refresh",
    ]
    imported = json.loads((stand_ins / "imported.json").read_text())
    made = operation()["resource"]
    assert imported == {
        "version": 3,
        "deployment": {
            "resources": [ROOT, {**made, "id": "superset/web", "outputs": made["inputs"]}],
            "pending_operations": [],
        },
    }


def test_what_was_not_made_is_forgotten(stand_ins: Path) -> None:
    done = CliRunner().invoke(app, ["recover", "--stack", "mine", "--yes"])
    assert done.exit_code == 0, done.output
    imported = json.loads((stand_ins / "imported.json").read_text())
    assert imported["deployment"] == {"resources": [ROOT], "pending_operations": []}


@pytest.mark.parametrize("labels", [{"app.kubernetes.io/instance": "other"}, {}])
def test_somebody_elses_object_is_not_taken(stand_ins: Path, labels: dict[str, str]) -> None:
    (stand_ins / "object.json").write_text(listed(labels))
    done = CliRunner().invoke(app, ["recover", "--stack", "mine", "--yes"])
    assert isinstance(done.exception, StepError)
    assert "Deployment superset/web: there, and without the label app.kubernetes.io/instance=mine" in str(done.exception)
    assert not [step for step in steps(stand_ins) if "refresh" in step]


def test_a_cluster_that_does_not_answer_is_no_reason_to_forget(stand_ins: Path) -> None:
    (stand_ins / "away").touch()
    (creation,) = recover.begun({"pending_operations": [operation()]})
    with pytest.raises(StepError, match="does not say what is there of 1 objects: refused"):
        recover.on_cluster(Cluster(), "mine", [creation])


def test_nothing_is_done_unasked(stand_ins: Path) -> None:
    done = CliRunner().invoke(app, ["recover", "--stack", "mine"], input="n\n")
    assert done.exit_code == 1
    assert not (stand_ins / "calls").exists()


def test_a_state_that_was_cut_off_is_put_back_by_hand() -> None:
    said = str(recover.way_out(StepError("error: failed to load checkpoint: EOF"), "mine"))
    assert ".pulumi/stacks/superset-async/mine.json.bak" in said
    other = StepError("error: no stack named 'mine' found")
    assert recover.way_out(other, "mine") is other
