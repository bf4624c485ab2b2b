"""The alerts and recording rules of a stack, for the Prometheus operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.common import Scope, labels, metadata

NAME = "alerting-rules"


@dataclass(frozen=True)
class AlertingRulesArgs:
    """What the rules need."""

    scope: Scope
    #: The groups, as a rule file has them.
    spec: Mapping[str, Any]


class AlertingRules(pulumi.ComponentResource):
    """A PrometheusRule. An operator that selects rules by a label finds the stack's `labels` on it."""

    def __init__(self, name: str, args: AlertingRulesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:rules:AlertingRules", name, None, opts)
        CustomResource(
            name,
            api_version="monitoring.coreos.com/v1",
            kind="PrometheusRule",
            metadata=metadata(args.scope, name, labels(args.scope, NAME, name)),
            spec=dict(args.spec),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
