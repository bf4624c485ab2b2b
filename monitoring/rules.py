"""All rules of a stack, as Prometheus reads them from a file and the Prometheus operator from a PrometheusRule."""

from __future__ import annotations

from typing import Any

from monitoring import alerts, objectives
from topology.model import Topology


def groups(topology: Topology) -> list[dict[str, Any]]:
    """The rule groups: objectives, then alerts. Every alert says whose stack it is about."""
    said = alerts.texts(topology)
    own: dict[str, Any] = {
        "name": f"superset-async-{topology.namespace}",
        "rules": [
            {
                "alert": alert.name,
                "expr": alert.expr,
                **({} if alert.lasting == "0m" else {"for": alert.lasting}),
                "labels": {"severity": alert.severity},
                "annotations": said[alert.name],
            }
            for alert in alerts.alerts(topology)
        ],
    }
    found = [*objectives.groups(topology, said), own]
    for rule in (rule for group in found for rule in group["rules"] if "alert" in rule):
        rule["labels"] |= {"stack": topology.stack, "namespace": topology.namespace}
    return found


def spec(topology: Topology) -> dict[str, Any]:
    """The content of a rule file, and the `spec` of a PrometheusRule."""
    return {"groups": groups(topology)}
