"""Reading a stack file (`stacks/Pulumi.<stack>.yaml`) without the engine, for `make up` and `make render`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import yaml

from topology.checkout import project_folder
from topology.problems import Problem, StackError, did_you_mean

PROJECT_NAME = "superset-async"
#: Overrides the folder of the stack files, which is `stacks` in the checkout, or else in the working directory.
STACKS_ENV = "SUPERSET_ASYNC_STACKS"


def folder() -> Path:
    """The folder of the stack files."""
    return Path(os.environ.get(STACKS_ENV) or project_folder() / "stacks")


def names() -> tuple[str, ...]:
    """Every stack that has a file."""
    return tuple(sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in folder().glob("Pulumi.*.yaml")))


def read(stack: str) -> dict[str, Any]:
    """The `superset-async:` keys of a stack file, without that prefix; StackError when it is missing or no stack file.

    A value that the engine encrypted stays as the file has it, `{"secure": "…"}`.
    """
    path = folder() / f"Pulumi.{stack}.yaml"
    if not path.exists():
        rule = f"has no file {path.name} in {path.parent}"
        raise StackError(stack, [Problem("stack", stack, rule, did_you_mean(stack, names()))])
    try:
        loaded: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise StackError(stack, [Problem("stack", stack, f"{path} is not YAML: {error}", "Correct it")]) from None
    content = cast(dict[str, Any], loaded) if isinstance(loaded, dict) else {}
    config = content.get("config")
    if not isinstance(config, dict):
        raise StackError(stack, [Problem("config", "missing", f"{path} has no `config` mapping", "Add one")])
    prefix = f"{PROJECT_NAME}:"
    keys = cast(dict[str, Any], config)
    return {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}
