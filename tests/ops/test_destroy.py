"""`superset-async destroy`: what is kept is listed, and data goes only where it is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra import recording
from ops import destroy
from ops.cli import app


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
    (command,) = destroy.commands("mine", resources, with_data=False)
    assert command[:2] == ["pulumi", "destroy"]
    assert "--exclude-protected" in command
    assert "unprotect" not in command


def test_with_its_data_a_namespace_goes_only_where_the_stack_made_it() -> None:
    ours = destroy.commands("mine", state_of({"topology": "minimal"}), with_data=True)
    assert ours[-1] == ["kubectl", "delete", "namespace", "superset"]
    theirs = destroy.commands("mine", state_of({"topology": "minimal", "existing_namespace": True}), with_data=True)
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
            f'[ "$2" != "${{FAILS:-none}}" ]\n'
        )
        program.chmod(0o755)
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
    assert isinstance(done.exception, destroy.DestroyError)
    assert calls.read_text().splitlines()[-1].startswith("pulumi state unprotect")
