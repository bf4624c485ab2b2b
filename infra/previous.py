"""The plan of a stack's last `pulumi up`, as the engine's state has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pulumi

from components.configuration import FILE

#: The logical name of the ConfigMap with the topology.
CONFIGURATION = "superset-topology"
#: Functions of the engine itself.
STACK_OUTPUTS, STACK_RESOURCES = "pulumi:pulumi:readStackOutputs", "pulumi:pulumi:readStackResourceOutputs"


def plan_of_last_up() -> dict[str, Any] | None:
    """The topology's JSON as the last `up` left it in the stack's ConfigMap; None where no `up` has ended yet.

    The ConfigMap in the state says what was made, also where the up that changed it ended in the middle.
    """
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    # The engine cannot be asked for the resources of a stack that has none.
    if not _ask(STACK_OUTPUTS, {"name": stack}):
        return None
    for urn, resource in _ask(STACK_RESOURCES, {"stackName": stack}).items():
        if urn.endswith(f":ConfigMap::{CONFIGURATION}"):
            return cast("dict[str, Any]", json.loads(resource["outputs"]["data"][FILE]))
    return None


def _ask(function: str, arguments: Mapping[str, str]) -> dict[str, Any]:
    answer = cast("dict[str, Any]", pulumi.runtime.invoke(function, dict(arguments)).value or {})
    return cast("dict[str, Any]", answer.get("outputs") or {})
