"""Running the rules over a graph, with what a team has configured and excepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, cast

from policies.graph import Graph, Resource, normalise
from policies.rule import Rule, Severity, Violation
from policies.rules import ALL, BY_ID
from topology.problems import did_you_mean

Level = Literal["mandatory", "advisory", "disabled"]
LEVELS: tuple[Level, ...] = ("mandatory", "advisory", "disabled")
#: Rule of the exceptions themselves: not in the list, since none can be made from it.
EXCEPTIONS = "policy-exceptions"
EXCEPTIONS_REASON = (
    "An exception ends on its date, names a rule and a resource that exist, and never excuses the loss of data."
)
EXCEPTIONS_FIX = "Mend what it excused and remove it, or decide again and give it a new date"
EXCEPTIONS_RUNBOOK = "docs/policies.md#exceptions"


class PolicyConfigError(ValueError):
    """A configuration of the rules that names what does not exist, or softens what must not be."""


@dataclass(frozen=True)
class Exemption:
    """One exception from a stack file: this rule may be broken by this resource until the end of that day."""

    rule: str
    #: As reports call it (`Deployment/web`), or the kind with the program's own name.
    resource: str
    reason: str
    owner: str
    expires: date

    def covers(self, rule: str, resource: Resource, today: date) -> bool:
        """Whether it excuses that resource from that rule today."""
        return (
            self.rule == rule
            and self.resource in (resource.title, f"{resource.kind}/{resource.name}")
            and today <= self.expires
            and rule in BY_ID
            and not BY_ID[rule].loses_data
        )


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    rule: str
    severity: Severity
    resource: str
    problem: str
    fix: str
    runbook: str
    #: The exception that excuses it.
    exemption: Exemption | None = None


@dataclass(frozen=True)
class Config:
    """What a team sets about the rules, as Pulumi's `--policy-pack-config` file has it."""

    levels: Mapping[str, Level] = field(default_factory=dict[str, Level])
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def level(self, rule: Rule) -> Level:
        """Its own, or the one that the team gave it."""
        return self.levels.get(rule.id, rule.severity)


@dataclass(frozen=True)
class Report:
    """What the rules found."""

    findings: tuple[Finding, ...]

    @property
    def mandatory(self) -> list[Finding]:
        """What stops a deployment."""
        return [each for each in self.findings if each.severity == "mandatory" and not each.exemption]

    @property
    def advisory(self) -> list[Finding]:
        """What should be mended."""
        return [each for each in self.findings if each.severity == "advisory" and not each.exemption]

    @property
    def excused(self) -> list[Finding]:
        """What an exception excuses."""
        return [each for each in self.findings if each.exemption]


def evaluate(
    graph: Graph,
    *,
    exemptions: Sequence[Exemption] = (),
    config: Config | None = None,
    today: date | None = None,
) -> Report:
    """Every rule over `graph`. Findings in the order of the rules; those of the exceptions last."""
    settings, day = config or Config(), today or date.today()
    findings: list[Finding] = []
    for rule in ALL:
        level = settings.level(rule)
        if level != "disabled":
            for violation in rule.violations(graph, settings.options.get(rule.id)):
                findings.append(finding_of(rule, level, violation, exemptions, day))
    findings.extend(
        Finding(EXCEPTIONS, severity, exemption.resource, problem, EXCEPTIONS_FIX, EXCEPTIONS_RUNBOOK)
        for exemption, severity, problem in mistaken(exemptions, graph, day)
    )
    return Report(tuple(findings))


def finding_of(rule: Rule, level: Severity, violation: Violation, exemptions: Iterable[Exemption], today: date) -> Finding:
    """What one violation says to a person, and the exception that excuses it."""
    excuse = next((each for each in exemptions if each.covers(rule.id, violation.resource, today)), None)
    title = violation.resource.title
    return Finding(rule.id, level, title, violation.problem, rule.fix, rule.runbook, excuse)


def mistaken(exemptions: Iterable[Exemption], graph: Graph, today: date) -> Iterator[tuple[Exemption, Severity, str]]:
    """What is wrong with the exceptions themselves."""
    titles = {name for each in graph.resources for name in (each.title, f"{each.kind}/{each.name}")}
    for each in exemptions:
        if each.rule not in BY_ID:
            yield (
                each,
                "mandatory",
                f"names rule {each.rule!r}, which does not exist. {did_you_mean(each.rule, tuple(BY_ID))}",
            )
        elif BY_ID[each.rule].loses_data:
            yield each, "mandatory", f"excuses {each.rule}, which protects data: there is no exception from it"
        elif each.expires < today:
            yield each, "mandatory", f"excused {each.rule} until {each.expires} ({each.owner}: {each.reason})"
        elif each.resource not in titles:
            yield each, "advisory", f"excuses {each.rule} for a resource that this stack does not have"


def exemptions_of(given: Iterable[Mapping[str, Any]]) -> tuple[Exemption, ...]:
    """Exceptions as a stack file says them (checked by its settings)."""
    return tuple(
        Exemption(each["rule"], each["resource"], each["reason"], each["owner"], date.fromisoformat(str(each["expires"])))
        for each in given
    )


def read_config(content: object) -> Config:
    """A policy configuration (JSON, as for `pulumi preview --policy-pack-config`); PolicyConfigError with every mistake."""
    levels: dict[str, Level] = {}
    options: dict[str, Mapping[str, Any]] = {}
    mistakes: list[str] = []
    for name, value in cast("dict[str, Any]", normalise(content)).items():
        given: dict[str, Any] = (
            dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else {"enforcementLevel": value}
        )
        level = given.pop("enforcementLevel", None)
        rules = [rule for rule in ALL if name in ("all", rule.id)]
        if not rules:
            mistakes.append(f"{name}: no such rule. {did_you_mean(name, tuple(BY_ID))}")
            continue
        if level is not None and level not in LEVELS:
            mistakes.append(f"{name}: level {level!r} is not one of {', '.join(LEVELS)}")
            continue
        for rule in rules:
            if level is not None and not (rule.loses_data and level != rule.severity):
                levels[rule.id] = level
            elif level is not None and name != "all":
                mistakes.append(f"{name}: protects data, so its level stays {rule.severity}")
        unknown = sorted(set(given) - set(rules[0].options)) if name != "all" else sorted(given)
        mistakes += [f"{name}.{key}: no such option. Known: {', '.join(rules[0].options) or 'none'}" for key in unknown]
        if not unknown and name != "all":
            options[name] = given
    if mistakes:
        raise PolicyConfigError("the policy configuration has mistakes:\n" + "\n".join(f"  {each}" for each in mistakes))
    return Config(levels, options)
