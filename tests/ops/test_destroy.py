"""`superset-async destroy`: what is kept is listed, and data goes only where it is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra import recording
from ops import destroy, engine
from ops.cli import app
from ops.stack_cluster import Cluster
from topology import stack_file


def state_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    recorded = recording.record("mine", {"platform": "kubernetes", **config})
    return [
        {"type": each.type, "urn": each.urn, "protect": each.protect, "inputs": each.inputs}
        for each in recorded.resources
        if each.custom
    ]


def test_what_is_kept_is_listed() -> None:
    assert list(destroy.kept(state_of({"topology": "enterprise"}))) == [
        "Namespace superset",
        "PersistentVolumeClaim postgres-backup",
        "12 generated passwords and keys, in the engine's state",
    ]


def test_data_stays_unless_it_is_told() -> None:
    resources = state_of({"topology": "minimal"})
    (command,) = destroy.commands("mine", resources, Cluster(), with_data=False)
    assert command[:2] == ["pulumi", "destroy"]
    assert "--exclude-protected" in command
    assert "unprotect" not in command


def test_with_its_data_a_namespace_goes_only_where_the_stack_made_it() -> None:
    ours = destroy.commands("mine", state_of({"topology": "minimal"}), Cluster(), with_data=True)
    assert ours[-1] == ["kubectl", "delete", "namespace", "superset"]
    theirs = destroy.commands(
        "mine", state_of({"topology": "minimal", "existing_namespace": True}), Cluster(), with_data=True
    )
    assert theirs[-1][-3:] == ["persistentvolumeclaim", "--selector", "app.kubernetes.io/instance=mine"]
    assert not any("namespace" in command for command in theirs)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the engine and kubectl that write down how they were called."""
    (tmp_path / "state.json").write_text(json.dumps({"deployment": {"resources": state_of({"topology": "minimal"})}}))
    for name in ("pulumi", "kubectl"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n[ "$1 $2" = "stack export" ] && exec cat {tmp_path}/state.json\n'
            f'case "$*" in *${{FAILS:-nothing}}*) exit 1;; esac\n'
        )
        program.chmod(0o755)
    (tmp_path / "Pulumi.mine.yaml").write_text("config: {}\n")
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "calls"


def test_nothing_is_destroyed_unasked(calls: Path) -> None:
    done = CliRunner().invoke(app, ["destroy", "--stack", "mine"], input="n\n")
    assert done.exit_code == 1
    assert "Namespace superset" in done.output
    assert calls.read_text().splitlines() == ["pulumi stack export --stack mine --non-interactive"]


def test_a_step_that_fails_ends_it(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "unprotect")
    done = CliRunner().invoke(app, ["destroy", "--stack", "mine", "--with-data", "--yes"])
    assert isinstance(done.exception, engine.StepError)
    assert calls.read_text().splitlines()[-1].startswith("pulumi state unprotect")


def test_the_cluster_is_the_stacks_own(calls: Path) -> None:
    """Another one may be at hand, with a namespace of the same name."""
    calls.with_name("Pulumi.mine.yaml").write_text("config:\n  kubernetes:context: prod\n")
    done = CliRunner().invoke(app, ["destroy", "--stack", "mine", "--with-data", "--yes"])
    assert done.exit_code == 0, done.output
    assert calls.read_text().splitlines()[-1] == "kubectl --context=prod delete namespace superset"
