"""The rules as policies of Pulumi: what looks at one resource stops it before it is made, the rest looks at the whole stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, cast

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pydantic import ValidationError

from policies.evaluation import (
    EXCEPTIONS,
    EXCEPTIONS_FIX,
    EXCEPTIONS_REASON,
    EXCEPTIONS_RUNBOOK,
    Exemption,
    exemptions_of,
    finding_of,
    mistaken,
)
from policies.graph import Graph, Resource, normalise
from policies.rule import Rule, Violation
from policies.rules import ALL
from topology.settings import PolicyException
from topology.stack_file import PROJECT_NAME

NAME = "superset-async"
_LEVELS = {"mandatory": EnforcementLevel.MANDATORY, "advisory": EnforcementLevel.ADVISORY}
Validate = Callable[[Any, ReportViolation], None]


class Registered:
    """What the engine has shown so far.

    It shows a resource's inputs one by one, before each is made, and at the end all resources with what their providers
    answered, in which defaults are filled in. Rules look at inputs, so those are kept until the end.
    """

    def __init__(self) -> None:
        self._inputs: dict[str, dict[str, Any]] = {}
        self._graph: tuple[frozenset[str], Graph] | None = None

    def one(self, args: ResourceValidationArgs) -> Graph:
        """The graph of a single resource."""
        inputs = normalise(plain(args.props))
        # What is left as it is on the cluster, the program does not set: the engine shows the former value.
        if "spec.replicas" in (args.opts.ignore_changes or ()):
            inputs.get("spec", {}).pop("replicas", None)
        self._inputs[args.urn] = inputs
        self._graph = None
        return Graph([Resource(type=args.resource_type, name=args.name, urn=args.urn, inputs=inputs)])

    def all(self, args: StackValidationArgs) -> Graph:
        """The graph of the whole stack."""
        urns = frozenset(each.urn for each in args.resources)
        if self._graph is None or self._graph[0] != urns:
            self._graph = (
                urns,
                Graph(
                    Resource(
                        type=each.resource_type,
                        name=each.name,
                        urn=each.urn,
                        parent=each.parent.urn if each.parent else "",
                        inputs=self._inputs[each.urn] if each.urn in self._inputs else normalise(plain(each.props)),
                        dependencies=frozenset(other.urn for other in each.dependencies),
                    )
                    for each in args.resources
                ),
            )
        return self._graph[1]


def plain(value: Any) -> Any:
    """`value` without the SDK's proxies, which raise where a value is not known yet."""
    if isinstance(value, Mapping):
        inner = cast("Mapping[str, Any]", value if isinstance(value, dict) else value["__target"])
        return {key: plain(inner[key]) for key in inner}
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = cast("Sequence[Any]", value if isinstance(value, list | tuple) else cast(Any, value)["__target"])
        return [plain(each) for each in items]
    return value


def policies() -> list[Policy]:
    """Every rule as a policy, and one for the exceptions in the stack file."""
    registered = Registered()
    made = [_policy(rule, registered) for rule in ALL]
    made.append(
        StackValidationPolicy(
            name=EXCEPTIONS,
            description=EXCEPTIONS_REASON,
            enforcement_level=EnforcementLevel.MANDATORY,
            validate=_exceptions(registered),
            remediation_steps=EXCEPTIONS_FIX,
            url=EXCEPTIONS_RUNBOOK,
        )
    )
    return made


def _policy(rule: Rule, registered: Registered) -> Policy:
    common: dict[str, Any] = {
        "name": rule.id,
        "description": rule.reason,
        "enforcement_level": _LEVELS[rule.severity],
        "remediation_steps": rule.fix,
        "url": rule.runbook,
    }
    if rule.options:
        common["config_schema"] = PolicyConfigSchema({name: option.schema() for name, option in rule.options.items()})

    def one(args: ResourceValidationArgs, report: ReportViolation) -> None:
        graph = registered.one(args)
        _report(rule, rule.violations(graph, normalise(args.get_config())), report)

    def all_(args: StackValidationArgs, report: ReportViolation) -> None:
        graph = registered.all(args)
        _report(rule, rule.violations(graph, normalise(args.get_config())), report)

    if rule.alone:
        return ResourceValidationPolicy(validate=one, **common)
    return StackValidationPolicy(validate=all_, **common)


def _report(rule: Rule, violations: Sequence[Violation], report: ReportViolation) -> None:
    excuses = _exemptions()
    for violation in violations:
        finding = finding_of(rule, rule.severity, violation, excuses, date.today())
        if finding.exemption is None:
            report(f"{finding.resource} {finding.problem}. {finding.fix}: {finding.runbook}", violation.resource.urn or None)


def _exceptions(registered: Registered) -> Validate:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for exemption, severity, problem in mistaken(_exemptions(), registered.all(args), date.today()):
            if severity == "mandatory":
                report(f"The exception for {exemption.resource} {problem}", None)

    return validate


def _exemptions() -> tuple[Exemption, ...]:
    """The exceptions of the stack that the engine works on."""
    given: object = pulumi.Config(PROJECT_NAME).get_object("policy_exceptions")
    try:
        return exemptions_of(PolicyException.model_validate(each).model_dump() for each in cast("list[Any]", given or []))
    except ValidationError:
        # The program itself refuses such a stack, and says what is wrong with it.
        return ()
