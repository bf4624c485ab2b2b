"""Every rule fails on a planted defect, passes on what is right, and says nothing about what is not known yet."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies import check
from policies.evaluation import evaluate
from policies.graph import UNKNOWN, Graph, Resource, UnknownValueError, normalise
from policies.rule import Rule
from policies.rules import ALL, BY_ID
from tests.policies import mutations, planted
from tests.policies.editor import NotApplicableError
from topology import stack_file
from topology.plan import plan

ROOT = Path(__file__).resolve().parents[2]


def defects(rule: str) -> Iterator[Graph]:
    """Graphs that break `rule`: a shipped stack with one edit, or a small graph of its own."""
    for mutation in mutations.all_mutations():
        if mutation.rule == rule:
            for stack in mutations.SHIPPED:
                try:
                    yield mutations.mutated(stack, mutation)
                    break
                except NotApplicableError:
                    continue
    for name, resource, inputs in planted.AWS_DEFECTS:
        if name == rule:
            yield planted.aws(resource, inputs)
    for name, make in planted.CONFIGURATION_DEFECTS:
        if name == rule:
            yield make()


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.id)
def test_rule_fails_on_its_defect(rule: Rule) -> None:
    """Each planted defect is reported by the rule that is about it, for a resource, in words."""
    graphs = list(defects(rule.id))
    assert graphs, "no defect is planted for this rule"
    for graph in graphs:
        found = rule.violations(graph)
        assert found
        assert all(each.resource in graph.resources and "cannot be checked" not in each.problem for each in found)


@pytest.mark.parametrize("stack", mutations.SHIPPED)
def test_shipped_stack_breaks_nothing(stack: str) -> None:
    """No rule, mandatory or advisory, has anything to say about a shipped stack."""
    graph = mutations.shipped(stack)
    assert len(graph.of_kind("Deployment")) >= 3
    assert evaluate(graph).findings == ()


@pytest.mark.parametrize("stack", ["enterprise", "minimal"])
def test_images_of_production_without_a_digest_are_named_once_each(stack: str) -> None:
    """As the file is: what a registry gave, it cannot say. Only environment prod is asked for it."""
    found = evaluate(check.graph_of(stack, stack_file.read(stack))).findings
    named = [re.findall("'(.+)'", each.problem) for each in found]
    images = plan(stack, stack_file.read(stack)).images
    assert {each.rule for each in found} <= {"pods-image-digest"}
    expected = [[images.postgres], [images.redis], [images.superset]] if stack == "enterprise" else []
    assert sorted(named) == sorted(expected)


def test_right_aws_resources_break_nothing() -> None:
    """Encrypted, redundant, backed up and private resources pass, and are not simply overlooked."""
    assert evaluate(planted.aws()).findings == ()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside plain data."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key))


@pytest.mark.thorough
@pytest.mark.parametrize(("source", "step"), [("minimal", 5), ("multi-tenant", 29), ("aws-enterprise", 29), ("aws", 1)])
def test_unknown_values_are_no_violations(source: str, step: int) -> None:
    """Whatever a preview does not know yet, no rule fails on it or takes it for a mistake: every nth value in turn."""
    graph = planted.aws() if source == "aws" else mutations.shipped(source)
    tried = 0
    for place, resource in enumerate(graph.resources):
        for path in list(leaves(resource.inputs)):
            tried += 1
            if tried % step:
                continue
            inputs = copy.deepcopy(resource.inputs)
            target = inputs
            for part in path[:-1]:
                target = target[part]
            target[path[-1]] = UNKNOWN
            changed = [*graph.resources[:place], replace(resource, inputs=inputs), *graph.resources[place + 1 :]]
            findings = evaluate(Graph(changed, graph.outputs)).findings
            assert findings == (), f"{resource.title} {path}"
    assert tried > 50


def test_unknown_is_never_a_value() -> None:
    """A rule cannot compare, search or print an unknown value by mistake."""
    for attempt in (bool, len, str, list, lambda x: x == 1, lambda x: x < 1, lambda x: "a" in x, lambda x: x.lower()):
        with pytest.raises(UnknownValueError):
            attempt(UNKNOWN)


def test_values_of_the_engine_become_plain() -> None:
    """Floats that are whole, marks of unknown values and nulls are put right in one place."""
    given = {"a": 3.0, "b": [1.5, {"c": 2.0}], "d": "04da6b54-80e4-46f7-96ec-b56ff0331ba9", "e": None}
    found = normalise(given)
    assert isinstance(found["a"], int)
    assert found["b"] == [1.5, {"c": 2}]
    assert found["d"] is UNKNOWN
    assert "e" not in found


def test_a_value_of_the_wrong_kind_stops() -> None:
    """What a rule cannot read is reported, and not let through."""
    inputs = {"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": 7}]}}}}
    graph = Graph([Resource("kubernetes:apps/v1:Deployment", "x", inputs=inputs)])
    assert any("cannot be checked" in each.problem for each in BY_ID["pods-image-tag"].violations(graph))


def test_rules_say_what_a_person_needs() -> None:
    """One sentence of reason, a fix, a runbook with that heading; no option where data could be lost."""
    assert len(BY_ID) == len(ALL)
    for rule in ALL:
        assert re.fullmatch(r"[A-Z].{20,160}\.", rule.reason), rule.id
        assert rule.reason.count(". ") == 0, rule.id
        assert rule.fix, rule.id
        page, _, anchor = rule.runbook.partition("#")
        headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, rule.runbook
        assert not (rule.loses_data and (rule.options or rule.severity == "advisory")), rule.id
