"""How a Prometheus without the operator finds a stack: its configuration file, where it runs beside the stack."""

from __future__ import annotations

from typing import Any

from topology.model import Topology


def config(topology: Topology, rules_file: str, interval_seconds: int = 5) -> dict[str, Any]:
    """Prometheus's configuration for the processes of this machine: its rules, its Alertmanager, and what it scrapes.

    Targets have the label `namespace`, as the operator gives it to them on Kubernetes: rules and dashboard ask by it.
    """
    every = f"{interval_seconds}s"
    here = {"namespace": topology.namespace}
    alertmanager = f"{topology.exporter.host}:{topology.monitoring.alertmanager_port}"
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [rules_file],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": "exporter",
                "static_configs": [{"targets": [f"{topology.exporter.host}:{topology.exporter.port}"], "labels": here}],
            }
        ],
    }
