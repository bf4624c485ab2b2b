"""A process does not start on a topology that could route a task to nobody."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.config import render
from runtime.environment.secrets import ConfigurationError
from runtime.tenants import routes
from tests.runtime.stacks import STACKS, environment, topology
from topology.model import Topology


def changed(plan: Topology, **fields: Any) -> Topology:
    return plan.model_copy(update=fields)


def without(plan: Topology, pool: str) -> Topology:
    return changed(plan, pools=tuple(one for one in plan.pools if one.name != pool))


PLAN = topology("multi-tenant", tenants={"acme": {"users": ["eve"]}, "small": {"users": ["bob"], "pool": "shared"}})
ACME, SMALL = PLAN.tenants
assert PLAN.urgent
UNDECLARED = PLAN.celery.model_copy(update={"queues": ("default", "small", "priority")})
WRONG: list[tuple[Topology, str]] = [
    (without(PLAN, "acme"), "tenant 'acme' goes to queue 'acme', which no pool listens to"),
    (without(PLAN, "priority"), "what is urgent goes to queue 'priority', which no pool listens to"),
    (without(PLAN, "default"), "what no tenant claims goes to queue 'default', which no pool listens to"),
    (changed(PLAN, celery=UNDECLARED), "tenant 'acme' goes to queue 'acme', which is not declared"),
    (changed(PLAN, celery=UNDECLARED), "pool 'acme' listens to queue 'acme', which is not declared"),
    (changed(PLAN, urgent=PLAN.urgent.model_copy(update={"queue": "vip"})), "what is urgent goes to queue 'vip'"),
    (
        changed(PLAN, tenants=(ACME.model_copy(update={"pool": "priority"}), SMALL)),
        "tenant 'acme' is to be served by pool 'priority', which does not listen to its queue",
    ),
]


@pytest.mark.parametrize("role", ["web", "worker", "beat"])
@pytest.mark.parametrize(("plan", "said"), WRONG)
def test_what_nobody_serves_is_refused_at_start(plan: Topology, said: str, role: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        render(plan, environment(plan, role))
    assert said in str(error.value)


@pytest.mark.parametrize("plan", [*map(topology, STACKS), PLAN], ids=lambda plan: f"{plan.stack}-{len(plan.tenants)}")
def test_every_stack_of_the_project_is_served(plan: Topology) -> None:
    assert routes.problems(plan) == []
