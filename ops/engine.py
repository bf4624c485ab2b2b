"""The engine's command-line tool, for the commands that work on a stack's state: what it has, and one step after another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, cast

from topology.problems import MendableError

Resource = Mapping[str, Any]


class StepError(MendableError):
    """The engine, or kubectl, refused a step; what it said is on the terminal, or in the text."""


def exported(stack: str) -> dict[str, Any]:
    """The engine's state of `stack` with its version, secrets encrypted; StepError in the engine's words where there is none."""
    answer = subprocess.run(
        ["pulumi", "stack", "export", "--stack", stack, "--non-interactive"], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise StepError(answer.stderr.strip())
    return cast("dict[str, Any]", json.loads(answer.stdout))


def deployment(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a state that was `exported` has of resources."""
    return cast("dict[str, Any]", state.get("deployment") or {})


def replace(stack: str, state: Mapping[str, Any]) -> None:
    """Put a state that was `exported` in the place of the one that is; StepError where the engine does not take it."""
    answer = subprocess.run(
        ["pulumi", "stack", "import", "--stack", stack, "--non-interactive"],
        input=json.dumps(state),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise StepError(answer.stderr.strip())


def resources(stack: str) -> list[Resource]:
    """The resources in the engine's state of `stack`, in the order in which they were made."""
    return cast("list[Resource]", deployment(exported(stack)).get("resources") or [])


def run(command: Sequence[str]) -> None:
    """Run a step on this terminal; StepError where it fails."""
    if subprocess.run(command, check=False).returncode:
        raise StepError(f"failed: {' '.join(command)}. Nothing after it was run; the same command goes on from there")
