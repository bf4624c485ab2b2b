"""What a key of a stack file is, its value in a stack, and where that came from: pure."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel

from topology import presets
from topology.problems import Problem, StackError, did_you_mean
from topology.reference import describe
from topology.settings import Settings
from topology.settings.section import fields_by_key, section_in
from topology.stack_file import PROJECT_NAME

Origin = Literal["stack file", "preset", "nothing: it has a default of its own"]
ABSENT = object()


@dataclass(frozen=True)
class Explanation:
    """One key of a stack."""

    key: str
    is_: str
    value: object
    origin: Origin
    #: The path with which docs/configuration.md has it: `<name>` for a name of the stack's own.
    path: str
    #: What may be said below it.
    below: tuple[str, ...]


def explain(stack: str, key: str, config: Mapping[str, Any]) -> Explanation:
    """`key`, a dotted path as in `web.min_replicas`, in the stack with these keys; StackError with the nearest for none."""
    path = key.removeprefix(f"{PROJECT_NAME}:").split(".")
    model, text, generic = _find(stack, path)
    preset = presets.settings_of(config.get("topology", "minimal"), on_aws=config.get("platform") == "aws")
    merged = presets.merge(preset, config)
    value = _at(merged, path)
    said = _at(config, path) is not ABSENT
    origin: Origin = "stack file" if said else "preset" if value is not ABSENT else "nothing: it has a default of its own"
    below = tuple(fields_by_key(model)) if model else ()
    return Explanation(key, text, None if value is ABSENT else value, origin, generic, below)


def _find(stack: str, path: list[str]) -> tuple[type[BaseModel] | None, str, str]:
    """The section at a path, where it is one, what the key is, and its path with `<name>` for a name of the stack's own."""
    model: type[BaseModel] | None = Settings
    text, in_map = "", False
    generic: list[str] = []
    for depth, part in enumerate(path):
        if in_map:
            # A name of the stack's own.
            in_map = False
            generic.append("<name>")
            continue
        fields = fields_by_key(model) if model else {}
        if part not in fields:
            if model is None and depth:
                # Inside plain data, such as superset.settings.
                return None, text, ".".join(generic)
            where = ".".join(path[: depth + 1])
            raise StackError(
                stack, [Problem(where, "unknown", "is no key of a stack file", did_you_mean(part, tuple(fields)))]
            )
        field = fields[part][1]
        text = describe(field)
        generic.append(part)
        model, in_map = section_in(field.annotation)
        if not field.description and model and model.__doc__:
            text = " ".join(model.__doc__.split())
    return (None if in_map else model), text, ".".join(generic)


def _at(config: Mapping[str, Any], path: list[str]) -> object:
    node: Any = config
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return ABSENT
        node = cast("dict[str, Any]", node)[part]
    return typing.cast(object, node)
