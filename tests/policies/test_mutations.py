"""However a shipped stack is broken, in its file or behind its back, the settings' check or a rule notices."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from policies.evaluation import evaluate
from policies.graph import UNKNOWN, Graph, Resource, at
from policies.rules import BY_ID, SUBJECTS
from tests.policies import aws_mutations, document, mutations, planted
from tests.policies.editor import NotApplicableError
from topology import invariants, presets, stack_file
from topology.plan import build
from topology.settings import read

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    "stack",
    [pytest.param(stack, marks=[] if stack == "minimal" else pytest.mark.thorough) for stack in mutations.SHIPPED],
)
def test_every_mutation_is_caught(stack: str) -> None:
    """At least 60 ways to break each stack; an edit is noticed by the rule that is about it."""
    missed: list[str] = []
    tried = 0
    for mutation in mutations.all_mutations():
        caught = mutations.caught_by(stack, mutation)
        if caught is None:
            continue
        tried += 1
        if not caught or (mutation.rule and mutation.rule not in caught):
            missed.append(f"{mutation.what}: {caught}")
    assert missed == []
    assert tried >= 60


@pytest.mark.thorough
@pytest.mark.parametrize("stack", ["enterprise", "aws-enterprise"])
@pytest.mark.parametrize("whole", [False, True], ids=["values", "whole Secrets"])
def test_edits_are_caught_in_a_first_preview(whole: bool, stack: str) -> None:
    """What generated secrets make unknown in a preview (they, their digests, a job's name) hides no other mistake."""
    missed: list[str] = []
    for mutation in mutations.all_mutations():
        # These look at the values themselves.
        if mutation.edit is None or mutation.rule in ("secrets-in-clear", "secrets-key-length", "secrets-known"):
            continue
        try:
            graph = as_in_a_preview(mutations.mutated(stack, mutation), whole=whole)
        except NotApplicableError:
            continue
        if mutation.rule not in {each.rule for each in evaluate(graph).findings}:
            missed.append(f"{mutation.rule}: {mutation.what}")
    assert missed == []


def as_in_a_preview(graph: Graph, *, whole: bool) -> Graph:
    """`graph` with everything unknown that follows from a generated secret."""
    changed: list[Resource] = []
    for each in graph.resources:
        inputs = copy.deepcopy(each.inputs)
        if each.kind == "Secret":
            inputs["stringData"] = UNKNOWN if whole else dict.fromkeys(inputs["stringData"], UNKNOWN)
        if each.kind == "Job":
            inputs["metadata"]["name"] = UNKNOWN
        annotations = at(inputs, "spec", "template", "metadata", "annotations", default={})
        if "superset-async/secret" in annotations:
            annotations["superset-async/secret"] = UNKNOWN
        changed.append(replace(each, inputs=inputs))
    return Graph(changed, graph.outputs)


def test_every_invariant_is_broken_by_a_mutation() -> None:
    """The mutations of the settings reach every invariant that the settings' check knows."""
    broken: set[str] = set()
    for stack in mutations.SHIPPED:
        config = stack_file.read(stack)
        for mutation in mutations.all_mutations():
            if mutation.settings is not None:
                reading = read(presets.merge(config, mutation.settings))
                topology = build(stack, reading.settings)
                broken |= {rule.__name__ for rule in invariants.RULES if list(rule(reading.settings, topology))}
    # These two hold by construction, or concern the sample database, which is local.
    by_construction = {"beat_runs_where_needed", "sample_has_no_uri"}
    assert {rule.__name__ for rule in invariants.RULES} - broken <= by_construction


def test_every_edit_names_a_rule() -> None:
    """No mutation expects a rule that does not exist."""
    assert {rule for rule, _, _ in (*mutations.EDITS, *aws_mutations.EDITS)} <= set(BY_ID)


def test_every_rule_about_aws_is_broken_on_the_real_stacks() -> None:
    """Not on resources that were written for the rule: on what the program registers."""
    for stack in (name for name in mutations.SHIPPED if stack_file.read(name)["platform"] == "aws"):
        caught = {
            mutation.rule
            for mutation in mutations.all_mutations()
            if mutation.rule in (mutations.caught_by(stack, mutation) or ())
        }
        assert {rule.id for rule in SUBJECTS["aws"].rules} <= caught, stack


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("superset_chart", {"redis-broker-not-persistent", "redis-no-password", "secrets-known", "celery-grace-period"}),
        (
            "article",
            {"redis-broker-evicts", "celery-child-memory", "celery-queue-unheard", "scaling-replicas-beside-scaler"},
        ),
    ],
)
def test_other_peoples_manifests_break_rules(name: str, rules: set[str]) -> None:
    """What the chart and the article are known for is found in their own manifests, not in ours alone."""
    found = evaluate(planted.foreign(name)).findings
    assert rules <= {each.rule for each in found}
    assert not [each for each in found if "cannot be checked" in each.problem]


@pytest.mark.thorough
def test_the_page_is_up_to_date() -> None:
    """docs/policies.md is what the rules and the mutations say (`make docs`)."""
    assert document.TARGET.read_text(encoding="utf-8") == document.document()
