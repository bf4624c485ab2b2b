"""Reading a stack file (`stacks/Pulumi.<stack>.yaml`) without the engine, for `make up` and `make render`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from yaml.constructor import ConstructorError

from topology.checkout import project_folder
from topology.problems import Problem, StackError, did_you_mean

PROJECT_NAME = "superset-async"
#: Overrides the folder of the stack files, which is `stacks` in the checkout, or else in the working directory.
STACKS_ENV = "SUPERSET_ASYNC_STACKS"


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once in its mapping: of two equal ones YAML's usual reader takes the last, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; ConstructorError with the place of a key that stands there a second time."""
        lines: dict[object, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                both = f"in lines {lines[key.value]} and {line}"
                raise ConstructorError(None, None, f"has the key {key.value!r} twice, {both}", None)
            lines[key.value] = line
        return super().construct_mapping(node, deep=deep)


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
    keys = config_of(stack)
    if misspelt := list(misspelt_prefixes(keys)):
        raise StackError(stack, misspelt)
    prefix = f"{PROJECT_NAME}:"
    return {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}


def config_of(stack: str) -> dict[str, Any]:
    """Every key of a stack file with its prefix, other projects' too; StackError as `read`."""
    return {str(key): value for key, value in cast(dict[Any, Any], _content(stack)["config"]).items()}


def holds_secrets(stack: str) -> bool:
    """Whether the engine needs the passphrase of the stack: its file has the salt of one. StackError as `read`."""
    return "encryptionsalt" in _content(stack)


def _content(stack: str) -> dict[str, Any]:
    path = folder() / f"Pulumi.{stack}.yaml"
    if not path.exists():
        rule = f"has no file {path.name} in {path.parent}"
        raise StackError(stack, [Problem("stack", stack, rule, did_you_mean(stack, names()))])
    try:
        # A subclass of the safe loader.
        loaded: object = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except ConstructorError as error:
        rule = f"{path} {error.problem}"
        raise StackError(stack, [Problem("stack", stack, rule, "Keep one of them")]) from None
    except yaml.YAMLError as error:
        raise StackError(stack, [Problem("stack", stack, f"{path} is not YAML: {error}", "Correct it")]) from None
    content = cast(dict[str, Any], loaded) if isinstance(loaded, dict) else {}
    if not isinstance(content.get("config"), dict):
        raise StackError(stack, [Problem("config", "missing", f"{path} has no `config` mapping", "Add one")])
    return content


def misspelt_prefixes(keys: Iterable[str]) -> Iterator[Problem]:
    """The keys of a stack file, prefixes included, that nobody would read: of no project, or of one whose name is nearly ours."""
    for key in keys:
        prefix, colon, rest = key.partition(":")
        if not colon:
            yield Problem(key, "…", "belongs to no project: nothing would read it", f"Write it as {PROJECT_NAME}:{key}")
        elif prefix != PROJECT_NAME and _is_like_ours(prefix):
            yield Problem(
                key, "…", f"is of a project {prefix!r}: nothing would read it", f"Write it as {PROJECT_NAME}:{rest}"
            )


def _is_like_ours(prefix: str) -> bool:
    # "superset" is, "kubernetes" is not.
    return difflib.SequenceMatcher(None, prefix.lower(), PROJECT_NAME).ratio() > 0.7
