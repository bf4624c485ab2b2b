"""The rules, routes and dashboard of a stack as files, for a Prometheus without the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from monitoring import dashboard, routes, rules
from topology.model import Topology


def files(topology: Topology, watchdog_url: str | None = None) -> dict[str, str]:
    """Text by file name: equal for equal topologies. No secret is in them."""
    return {
        "rules.yaml": _yaml(rules.spec(topology), topology),
        "dashboard.json": dashboard.document(topology),
        "alertmanager.yaml": _yaml(routes.config(topology, watchdog_url=watchdog_url), topology),
    }


def write(topology: Topology, folder: Path, watchdog_url: str | None = None) -> list[Path]:
    """Write them to `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, text in files(topology, watchdog_url).items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def _yaml(content: dict[str, Any], topology: Topology) -> str:
    head = f"# Made from stacks/Pulumi.{topology.stack}.yaml by make rules STACK={topology.stack}; do not edit.\n"
    return head + yaml.safe_dump(content, sort_keys=False, width=1000, allow_unicode=True)
