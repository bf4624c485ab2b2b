"""From the keys of a stack file to its settings, with every mistake found at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from topology import presets
from topology.presets import TopologyName
from topology.problems import Problem, did_you_mean
from topology.quantities import STACK_FILE
from topology.settings.section import fields_by_key, section_in
from topology.settings.stack import Settings


@dataclass(frozen=True)
class Reading:
    """Settings read from a stack, and what was wrong with it.

    Where there are problems, each key in `repaired` has its preset's value instead of the stack's, so that the rest of the
    stack can still be checked; such settings must not be built from.
    """

    settings: Settings
    problems: tuple[Problem, ...]
    repaired: frozenset[str]


def read(config: Mapping[str, object]) -> Reading:
    """The settings in a stack's `superset-async:` keys, laid over the preset of the topology that they name.

    ValidationError where the preset itself is wrong, which no change of the stack file mends.
    """
    problems: list[Problem] = []
    repaired: set[str] = set()
    topology = config.get("topology")
    if topology not in presets.NAMES:
        value = "missing" if topology is None else repr(topology)
        rule = f"must be one of {', '.join(presets.NAMES)}"
        problems.append(Problem("topology", value, rule, did_you_mean(str(topology), presets.NAMES)))
        repaired.add("topology")
        topology = "minimal"
    preset = presets.settings_of(cast(TopologyName, topology), on_aws=config.get("platform") == "aws")
    given = cast(dict[str, Any], copy.deepcopy(dict(config))) | {"topology": topology}
    while True:
        try:
            settings = Settings.model_validate(
                presets.merge(preset, given), by_alias=True, by_name=False, context=STACK_FILE
            )
        except ValidationError as error:
            wrong = error.errors()
            for detail in wrong:
                problem = _problem(detail)
                # Missing because the value was taken out in an earlier round, where it was reported.
                if detail["type"] != "missing" or problem.key not in repaired:
                    problems.append(problem)
                repaired.add(problem.key)
            # Each one, whatever the others did.
            removed = [_remove(given, detail["loc"]) for detail in wrong]
            if not any(removed):
                raise
        else:
            return Reading(settings, tuple(problems), frozenset(repaired))


def _remove(given: dict[str, Any], loc: tuple[int | str, ...]) -> bool:
    """Take the value at `loc` out of `given`, or the section around it that the stack file itself says; False where none is."""
    parent, last, node = given, str(loc[0]), cast(Any, given)
    for part in loc:
        if not isinstance(node, dict) or part not in node:
            break
        parent, last, node = cast(dict[str, Any], node), str(part), cast(Any, node[part])
    there = last in parent
    parent.pop(last, None)
    return there


def _problem(detail: ErrorDetails) -> Problem:
    path, model = _locate(detail["loc"])
    key = ".".join(path)
    value = repr(detail["input"])
    value = value if len(value) <= 80 else value[:77] + "…"
    if detail["type"] == "extra_forbidden":
        return Problem(key, value, "is no key of a stack file", did_you_mean(path[-1], tuple(fields_by_key(model))))
    if detail["type"] == "missing":
        return Problem(key, "missing", "must be given", "Add it to the stack file")
    if detail["type"] == "value_error" and "password" in detail["msg"]:
        value = "(hidden)"
    if detail["type"] == "too_short":
        least = detail.get("ctx", {}).get("min_length", 1)
        return Problem(key, value, f"must have at least {least}", _describe(model, path[-1]))
    rule, _, fix = detail["msg"].removeprefix("Value error, ").partition("|")
    rule = rule[0].lower() + rule[1:]
    return Problem(key, value, rule, fix or _describe(model, path[-1]))


def _locate(loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel]]:
    """The dotted path of an error as the stack file spells it, and the section that its last key belongs to."""
    model: type[BaseModel] = Settings
    path: list[str] = []
    section: type[BaseModel] = Settings
    inside_map = False
    for part in loc:
        if part == "[key]":
            continue
        path.append(str(part))
        if inside_map:
            section, inside_map = model, False
            continue
        section = model
        found = fields_by_key(model).get(str(part))
        if found is None:
            continue
        inner, inside_map = section_in(found[1].annotation)
        model = inner or model
    return path, section


def _describe(model: type[BaseModel], key: str) -> str:
    _, field = fields_by_key(model).get(key, (key, None))
    return f"It is: {field.description}" if field and field.description else "See docs/configuration.md"
