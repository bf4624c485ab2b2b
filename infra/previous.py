"""The plan of a stack's last `pulumi up`, as the engine's state has it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, cast

import pulumi

from components.configuration import FILE

#: The logical name of the ConfigMap with the topology.
CONFIGURATION = "superset-topology"
#: What the engine says of a state that it cannot read.
HALF_WRITTEN = "failed to load checkpoint"
#: How often the engine is asked, and the seconds between.
ATTEMPTS, PAUSE = 50, 0.1
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
    answer = cast("dict[str, Any]", _answered(function, arguments) or {})
    return cast("dict[str, Any]", answer.get("outputs") or {})


def _answered(function: str, arguments: Mapping[str, str]) -> Any:
    """The engine's answer; RunError where it cannot read its own state.

    The engine of an `up` writes its state beside the program. Of a state in a folder (`pulumi login file://…`) it reads a half
    written file then, and says so (seen with 3.259, once in a dozen ups): it is asked again.
    """
    for _ in range(ATTEMPTS):
        try:
            return pulumi.runtime.invoke(function, dict(arguments)).value
        except Exception as error:
            if HALF_WRITTEN not in str(error):
                raise
            time.sleep(PAUSE)
    raise pulumi.RunError(
        f"the engine could not read its own state in {ATTEMPTS * PAUSE:.0f} s ({HALF_WRITTEN}): see docs/runbooks/recovery.md"
    )
