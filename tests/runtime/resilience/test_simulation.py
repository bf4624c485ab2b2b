"""Whatever happens, in whatever order: what executes is not declared lost, a write begins once, and everything ends.

The machines drive `simulation.World`: the real deliveries, keepers, delayed messages and reaper around a Redis that loses its last
second. `MUTATIONS` are mistakes that the code once had, or could have: for each a scenario passes on the code as it is and fails
with the mistake, and the machine finds the gravest ones by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from runtime.broker import delayed_messages
from runtime.broker.task_messages import TaskMessage
from runtime.environment import leases, restarts
from runtime.queries import deliveries, executions, reaper
from tests.runtime.resilience.simulation import TICK, World, world

WORKERS = ("w1@h", "w2@h")
SETTINGS = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


class Platform(RuleBasedStateMachine):
    """Queries on two workers; children, workers and Redis die, and messages come twice."""

    def __init__(self) -> None:
        super().__init__()
        self._around = world()
        self.world = self._around.__enter__()

    @initialize()
    def begun(self) -> None:
        """Redis has been there for longer than the reaper is quiet."""
        self.world.advance(30)

    @rule(writes=st.booleans())
    def submit(self, writes: bool) -> None:
        self.world.submit(writes=writes)

    @rule(worker=st.sampled_from(WORKERS))
    def deliver(self, worker: str) -> None:
        self.world.start_worker(worker)
        self.world.deliver(worker)

    @precondition(lambda self: any(actor.runnable for actor in self.world.actors))
    @rule(data=st.data(), steps=st.integers(1, 4))
    def step(self, data: Any, steps: int) -> None:
        """One delivery goes on while the others stand still."""
        actor = data.draw(st.sampled_from([it for it in self.world.actors if it.runnable]))
        for _ in range(steps):
            if actor.runnable:
                actor.step()

    @rule(seconds=st.sampled_from([TICK, 1.0, 5.0, 12.0, 31.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.actors)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        self.world.finish(data.draw(st.sampled_from(self.world.actors)))

    @precondition(lambda self: self.world.actors)
    @rule(data=st.data(), repeated=st.booleans())
    def deliver_twice(self, data: Any, repeated: bool) -> None:
        """A message that is in use comes again."""
        self.world.send_again(data.draw(st.sampled_from(self.world.actors)).task_id)
        if repeated:
            self.world.deliver("w2@h")

    @precondition(lambda self: self.world.actors)
    @rule(data=st.data())
    def kill_child(self, data: Any) -> None:
        self.world.kill_child(data.draw(st.sampled_from(self.world.actors)))

    @rule(worker=st.sampled_from(WORKERS))
    def kill_worker(self, worker: str) -> None:
        self.world.kill_worker(worker)

    @rule(lost=st.sampled_from([0.0, TICK, 1.0]), away=st.sampled_from([0.0, TICK, 3.0, 20.0]))
    def crash_redis(self, lost: float, away: float) -> None:
        self.world.crash_redis(lost, away)

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.world.violations == []

    def teardown(self) -> None:
        try:
            if not self.world.violations:
                self.world.settle()
            assert self.world.violations == []
        finally:
            self._around.__exit__(None, None, None)


def test_what_lives_is_not_declared_lost_a_write_begins_once_and_all_ends() -> None:
    run_state_machine_as_test(Platform, settings=SETTINGS)
