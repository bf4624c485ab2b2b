"""Service level objectives as Prometheus rules, in the form in which Sloth generates them (multi-window, multi-burn-rate).

Names of records and labels, windows, factors and the form of expressions are Sloth's: its dashboards and the team's habits fit.
What is different: one objective has a budget for each queue and tenant. The numbers are those of Google's SRE workbook for 30
days: a page when 2 % of the budget went in an hour or 5 % in 6 hours, a ticket when 10 % went in a day or in 3 days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topology import metric_names
from topology.model import Topology

#: Who is charged: each has a budget of its own.
PLACE = ("queue", "tenant")
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
PERIOD_DAYS = 30
#: Queries a second below which a window counts as if it had so many: one of two queries that waits is no outage. With one a
#: minute and 99 % it takes nine bad ones in an hour to page.
LEAST_RATE = "1/60"
#: Severity, then pairs of a factor of the budget's even use and the two windows that must both show it.
BURNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "page": (("14.4", "5m", "1h"), ("6", "30m", "6h")),
    "ticket": (("3", "2h", "1d"), ("1", "6h", "3d")),
}

Rule = dict[str, Any]
Group = dict[str, Any]


@dataclass(frozen=True)
class Objective:
    """One objective: `percent` of all events are good.

    `bad` and `all` are PromQL rates by PLACE, with `{{.window}}` for the window. `alert` is the name of its two alerts; `promise`
    says it in words, as the summary of an alert does.
    """

    name: str
    percent: float
    bad: str
    all: str
    alert: str
    promise: str

    def error_ratio(self, window: str) -> str:
        """The share of bad events in `window`: 0 without events."""
        text = f"({self.bad})\n/\nclamp_min({self.all}, {LEAST_RATE})"
        return text.replace("{{.window}}", window)


def objectives(topology: Topology) -> tuple[Objective, ...]:
    """The objectives of a stack."""
    promised = topology.exporter.objectives
    stack = f'namespace="{topology.namespace}"'
    by = f"sum by ({', '.join(PLACE)})"
    wait, completed = metric_names.WAIT_SECONDS, metric_names.TASKS_COMPLETED
    bound = f"{promised.wait:g}"
    begun = f"{by} (rate({wait}_count{{{stack}}}[{{{{.window}}}}]))"
    ended = f'{by} (rate({completed}{{{stack},status!="stopped"}}[{{{{.window}}}}]))'
    return (
        Objective(
            name="waits",
            percent=promised.waits_met,
            bad=f'{begun} - {by} (rate({wait}_bucket{{{stack},le="{bound}"}}[{{{{.window}}}}]))',
            all=begun,
            alert="AsyncQueriesWaitTooLong",
            promise=f"{promised.waits_met:g} % of queries begin within {bound} s",
        ),
        Objective(
            name="ends",
            percent=promised.ends_well,
            bad=f'{by} (rate({completed}{{{stack},reason=~"lost|timed_out"}}[{{{{.window}}}}]))',
            all=ended,
            alert="AsyncQueriesEndBadly",
            promise=f"{promised.ends_well:g} % of queries end neither lost nor at a limit",
        ),
    )


def groups(topology: Topology, annotations: Mapping[str, Mapping[str, str]]) -> list[Group]:
    """Three groups for each objective: its error ratios, what is known of it, and its alerts (`annotations` by their names)."""
    found: list[Group] = []
    for objective in objectives(topology):
        service = f"superset-async-{topology.namespace}"
        labels = {"sloth_id": f"{service}-{objective.name}", "sloth_service": service, "sloth_slo": objective.name}
        name = f"{service}-{objective.name}"
        found += [
            {
                "name": f"sloth-slo-sli-recordings-{name}",
                "rules": [_ratio(objective, window, labels) for window in WINDOWS] + [_ratio_of_period(labels)],
            },
            {"name": f"sloth-slo-meta-recordings-{name}", "rules": _meta(objective, labels)},
            {
                "name": f"sloth-slo-alerts-{name}",
                "rules": [_alert(objective, severity, labels, annotations[objective.alert]) for severity in BURNS],
            },
        ]
    return found


def _selector(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{key}="{value}"' for key, value in sorted(labels.items()))


def _ratio(objective: Objective, window: str, labels: Mapping[str, str]) -> Rule:
    return {
        "record": f"slo:sli_error:ratio_rate{window}",
        "expr": objective.error_ratio(window),
        "labels": {**labels, "sloth_window": window},
    }


def _ratio_of_period(labels: Mapping[str, str]) -> Rule:
    period = f"{PERIOD_DAYS}d"
    of = f"slo:sli_error:ratio_rate5m{{{_selector(labels)}}}[{period}]"
    return {
        "record": f"slo:sli_error:ratio_rate{period}",
        "expr": f"sum_over_time({of})\n/ ignoring (sloth_window)\ncount_over_time({of})",
        "labels": {**labels, "sloth_window": period},
    }


def _budget(objective: Objective) -> float:
    return round(1 - objective.percent / 100, 10)


def _meta(objective: Objective, labels: Mapping[str, str]) -> list[Rule]:
    selector = _selector(labels)
    ratio, period = objective.percent / 100, f"{PERIOD_DAYS}d"
    both = f"/ on(sloth_id, sloth_slo, sloth_service) group_left\nslo:error_budget:ratio{{{selector}}}"

    def record(name: str, expr: str, **more: str) -> Rule:
        return {"record": name, "expr": expr, "labels": {**labels, **more}}

    return [
        record("slo:objective:ratio", f"vector({ratio:.10g})"),
        record("slo:error_budget:ratio", f"vector(1-{ratio:.10g})"),
        record("slo:time_period:days", f"vector({PERIOD_DAYS})"),
        record("slo:current_burn_rate:ratio", f"slo:sli_error:ratio_rate5m{{{selector}}}\n{both}"),
        record("slo:period_burn_rate:ratio", f"slo:sli_error:ratio_rate{period}{{{selector}}}\n{both}"),
        record("slo:period_error_budget_remaining:ratio", f"1 - slo:period_burn_rate:ratio{{{selector}}}"),
        record("sloth_slo_info", "vector(1)", sloth_mode="superset-async", sloth_objective=f"{objective.percent:g}"),
    ]


def _alert(objective: Objective, severity: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Rule:
    selector, budget = _selector(labels), _budget(objective)

    def burns(factor: str, short: str, long: str) -> str:
        both = "\n    and\n".join(
            f"    max(slo:sli_error:ratio_rate{window}{{{selector}}} > ({factor} * {budget:g})) without (sloth_window)"
            for window in (short, long)
        )
        return f"(\n{both}\n)"

    return {
        "alert": objective.alert,
        "expr": "\nor\n".join(burns(*burn) for burn in BURNS[severity]),
        "labels": {"sloth_severity": severity, "severity": severity},
        "annotations": dict(annotations),
    }
