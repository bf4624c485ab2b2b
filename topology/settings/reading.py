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
            found = {detail["loc"]: _problem(detail) for detail in wrong}
            for detail in wrong:
                problem = found[detail["loc"]]
                # Missing because the value was taken out in an earlier round, where it was reported; too short without its
                # wrong items, which are reported.
                repeated = {"missing": repaired, "too_short": {each.key.rpartition(".")[0] for each in found.values()}}
                if problem.key not in repeated.get(detail["type"], ()):
                    problems.append(problem)
            repaired.update(problem.key for problem in found.values())
            # Each one, whatever the others did.
            removed = [_remove(given, detail["loc"]) for detail in wrong]
            repaired.update(filter(None, removed))
            if not any(removed):
                raise
        else:
            return Reading(settings, tuple(problems), frozenset(repaired))


def _remove(given: dict[str, Any], loc: tuple[int | str, ...]) -> str:
    """Take the value at `loc` out of `given`, or the section or list around it that the stack file itself says.

    The key of what was taken out; empty where there is none.
    """
    parent, path, node = given, [str(loc[0])], cast(Any, given)
    for depth, part in enumerate(loc):
        if not isinstance(node, dict) or part not in node:
            break
        parent, path, node = cast(dict[str, Any], node), [str(each) for each in loc[: depth + 1]], cast(Any, node[part])
    there = path[-1] in parent
    parent.pop(path[-1], None)
    return ".".join(path) if there else ""


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
