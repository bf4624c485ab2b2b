"""Whatever happens, in whatever order: what executes is not declared lost, a write begins once, and everything ends.

The machines drive `simulation.World`: the real deliveries, keepers, delayed messages and reaper around a Redis that loses its
last second. `MUTATIONS` are mistakes that the code once had, or could have: for each a scenario passes on the code as it is and
fails with the mistake, and the machine finds the gravest ones by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from runtime.broker import delayed_messages
from runtime.broker.messages import Messages
from runtime.broker.task_messages import TaskMessage
from runtime.environment import coordination, leases, restarts
from runtime.queries import deliveries, executions, final_states, query_tasks, reaper
from runtime.queries.interfaces import Seen
from tests.runtime.queries.simulation import PACE, TICK, Fence, World, world

pytestmark = pytest.mark.thorough

WORKERS = ("w1@h", "w2@h")
SETTINGS = settings(
    max_examples=60,
    report_multiple_bugs=False,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
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

    @rule(writes=st.booleans())
    def begin_in_the_last_second(self, writes: bool) -> None:
        """What a worker has just begun is what Redis loses, and its message comes again: rare by chance, common at a failover."""
        query_id = self.world.submit(writes=writes)
        self.world.deliver("w1@h")
        self.world.run()
        self.world.crash_redis(1.0, 0)
        self.world.send_again(f"sql-{query_id}")
        self.world.start_worker("w2@h")
        self.world.deliver("w2@h")

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.world.problems() == []

    def teardown(self) -> None:
        try:
            if not self.world.problems():
                self.world.settle()
            assert self.world.problems() == []
        finally:
            self._around.__exit__(None, None, None)


def test_what_lives_is_not_declared_lost_a_write_begins_once_and_all_ends() -> None:
    run_state_machine_as_test(Platform, settings=SETTINGS)


def silence_shorter_than_renewals(patch: pytest.MonkeyPatch) -> None:
    """Renewed every 5 s, given up after 3 s."""
    patch.setattr(leases, "RENEW_SECONDS", 5.0)
    patch.setattr(leases, "SILENCE_SECONDS", 3.0)


def own_renewal_goes_on(patch: pytest.MonkeyPatch) -> None:
    """A second delivery that waits for the first to take its lease again renews its own meanwhile."""
    give_back = leases.Keeper.give_back

    def give_back_and_renew(keeper: leases.Keeper, lease: leases.Lease) -> None:
        give_back(keeper, lease)
        keeper.keep(lease)
        keeper.renew_all()

    def sleep_silently(*_: object, **options: Any) -> bool:
        options["sleep"](leases.SILENCE_SECONDS)
        return True

    patch.setattr(leases.Keeper, "give_back", give_back_and_renew)
    patch.setattr(leases, "falls_silent", sleep_silently)


def begins_before_it_has_won(patch: pytest.MonkeyPatch) -> None:
    """What runs is ended, and then the row of the new attempt is there already."""
    begin = executions.begin

    def end_and_begin(connection: Any, execution: executions.Execution, attempt: int) -> bool:
        executions.end(connection, execution.kind, execution.subject, "lost")
        return begin(connection, execution, attempt)

    patch.setattr(executions, "begin", end_and_begin)


def removes_what_was_rescheduled(patch: pytest.MonkeyPatch) -> None:
    """What was sent is removed by its id."""
    script = "redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('HDEL', KEYS[2], ARGV[1]) return 1"
    patch.setattr(delayed_messages, "_REMOVE", script)


def trusts_what_it_knew_before_the_silence(patch: pytest.MonkeyPatch) -> None:
    """A delivery decides by the attempt that it saw before it waited, and a query that has ended may begin."""
    patch.setattr(Fence, "begin", lambda *_: True)
    read = deliveries.Delivery._read

    def read_once(delivery: Any) -> deliveries.Seen:
        delivery.seen = getattr(delivery, "seen", None) or read(delivery)
        return delivery.seen

    patch.setattr(deliveries.Delivery, "_read", read_once)


def every_sweep_is_after_an_absence(patch: pytest.MonkeyPatch) -> None:
    """As with a pooled connection that is a new one at every sweep."""
    patch.setattr(restarts.RestartDetector, "is_same", lambda *_: False)


def restores_before_it_ends(patch: pytest.MonkeyPatch) -> None:
    """The reaper gives a message back, and then ends the write of which it is, which a worker may have begun."""

    def restore_first(self: Any, tag: str, task: str) -> None:
        self._messages.restore(tag)
        query_id = int(task.removeprefix("sql-"))
        if final_states.left_write(query_id):
            final_states.end_lost({query_id: "lost"})

    patch.setattr(reaper.Reaper, "_restore", restore_first)


def a_lost_lease_of_one_that_lives(platform: World, _: pytest.MonkeyPatch) -> None:
    """Redis loses a lease that was just taken, and the message comes again before its process has taken it anew."""
    platform.advance(5 - platform.now % 5)
    platform.submit(writes=False)
    platform.deliver()
    platform.run()
    platform.crash_redis(1.0, 0)
    platform.send_again("sql-1")
    platform.deliver("w2@h")
    platform.run()
    platform.advance(25)


def one_that_ends_while_it_is_waited_for(platform: World, _: pytest.MonkeyPatch) -> None:
    """The same, and it ends before it had to take its lease again."""
    platform.submit(writes=False)
    first = platform.deliver()
    platform.run()
    platform.crash_redis(1.0, 0)
    platform.send_again("sql-1")
    platform.deliver("w2@h")
    platform.run()
    assert first
    platform.finish(first)
    platform.run()
    platform.advance(25)


def two_that_begin(platform: World, _: pytest.MonkeyPatch) -> None:
    """Both have found that nobody has begun the second attempt: one took the lease before Redis lost it, the other after."""
    query_id = platform.submit(writes=True)
    with platform.transaction() as connection:
        before = executions.Execution("sql", str(query_id), "sql-1", "", "default", "u", "d", True, "w1@h", None)
        executions.begin(connection, before, 1)
        executions.end(connection, "sql", str(query_id), "retried", 1)
    first = platform.deliver()
    assert first
    # It takes the lease, reads which attempt was before, and is about to write its own.
    for _step in range(3):
        first.step()
    platform.crash_redis(1.0, 0)
    platform.send_again("sql-1")
    second = platform.deliver("w2@h")
    assert second
    while second.runnable:
        second.step()
    platform.run()
    platform.advance(1)


def a_worker_that_dies(platform: World, _: pytest.MonkeyPatch) -> None:
    """Its message is delivered and nobody's."""
    platform.submit(writes=False)
    platform.deliver()
    platform.run()
    platform.kill_worker("w1@h")
    platform.advance(60)


def a_quick_worker(platform: World, patch: pytest.MonkeyPatch) -> None:
    """It takes a message in the moment in which the reaper gives it back."""
    restore = Messages.restore

    def restore_and_deliver(messages: Messages, tag: str) -> str | None:
        where = restore(messages, tag)
        platform.deliver("w2@h")
        platform.run()
        return where

    patch.setattr(Messages, "restore", restore_and_deliver)
    platform.submit(writes=True)
    platform.deliver()
    platform.kill_worker("w1@h")
    platform.advance(60)


def a_write_whose_worker_dies(platform: World, _: pytest.MonkeyPatch) -> None:
    """It had begun: nobody runs it again, and its statement may go on in the database."""
    platform.submit(writes=True)
    platform.deliver()
    platform.run()
    platform.kill_worker("w1@h")
    platform.advance(60)


def ends_before_it_cancels(patch: pytest.MonkeyPatch) -> None:
    """The user is told before the statement is cancelled."""

    def end_lost(queries: Mapping[int, str]) -> dict[int, bool]:
        return {query: final_states.end("sql", str(query), "lost", message) for query, message in queries.items()}

    patch.setattr(final_states, "end_lost", end_lost)


def a_second_delivery_that_dies(platform: World, _: pytest.MonkeyPatch) -> None:
    """Redis has lost the lease of the first one, which lives; the parent of the second says that its child is dead."""
    platform.submit(writes=False)
    platform.deliver()
    platform.run()
    platform.crash_redis(1.0, 0)
    platform.send_again("sql-1")
    second = platform.deliver("w2@h")
    assert second
    platform.kill_child(second)
    platform.deliver("w2@h")
    platform.run()


def buries_what_is_not_there(patch: pytest.MonkeyPatch) -> None:
    """A parent says that an execution is dead whose lease nobody has."""
    patch.setattr(leases, "_BURY", leases._BURY.replace("if not value or", "if value and"))


MUTATIONS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[World, pytest.MonkeyPatch], None]]] = [
    (silence_shorter_than_renewals, a_lost_lease_of_one_that_lives),
    (own_renewal_goes_on, a_lost_lease_of_one_that_lives),
    (trusts_what_it_knew_before_the_silence, one_that_ends_while_it_is_waited_for),
    (begins_before_it_has_won, two_that_begin),
    (every_sweep_is_after_an_absence, a_worker_that_dies),
    (restores_before_it_ends, a_quick_worker),
    (ends_before_it_cancels, a_write_whose_worker_dies),
    (buries_what_is_not_there, a_second_delivery_that_dies),
]


def played(scenario: Callable[[World, pytest.MonkeyPatch], None], patch: pytest.MonkeyPatch) -> list[str]:
    """What is wrong after a scenario, and after all was given time to end."""
    with world() as platform:
        platform.advance(30)
        scenario(platform, patch)
        if not platform.problems():
            platform.settle()
        return platform.problems()


@pytest.mark.parametrize(("mistake", "scenario"), MUTATIONS)
def test_each_mistake_is_seen(
    mistake: Callable[[pytest.MonkeyPatch], None], scenario: Callable[[World, pytest.MonkeyPatch], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert played(scenario, patch) == []
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        assert played(scenario, patch) != []


@pytest.mark.parametrize("mistake", [silence_shorter_than_renewals, own_renewal_goes_on])
def test_the_machine_finds_what_once_was_wrong(mistake: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        with pytest.raises(AssertionError):
            run_state_machine_as_test(Platform, settings=settings(SETTINGS, max_examples=400, phases=[Phase.generate]))


@pytest.mark.parametrize("fault", ["none", "restarted", "full", "away"])
def test_the_reaper_is_quiet_while_the_living_may_not_have_been_heard(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what becomes of the message of a dead worker: it is put back two sweeps after it looks lost, and not before the living
    had time to be heard."""
    with world() as platform:
        platform.advance(30)
        platform.submit(writes=False)
        platform.deliver()
        platform.kill_worker("w1@h")
        # What the worker had published has ended, and the message has looked lost in one sweep.
        while not platform.suspected():
            platform.advance(TICK)
        if fault == "restarted":
            platform.crash_redis(0, 0)
        elif fault == "full":
            with pytest.MonkeyPatch.context() as patch:
                platform.refuse_writes(patch)
                platform.advance(PACE.every)
        elif fault == "away":
            platform.reaper_lives = False
            platform.advance(90)
            platform.reaper_lives = True
        platform.advance(PACE.apart + TICK)
        assert platform.unacknowledged() == (0 if fault == "none" else 1)
        platform.advance(PACE.quiet + PACE.every)
        assert platform.unacknowledged() == 0


@pytest.mark.parametrize("seen", get_args(Seen))
def test_a_lost_write_says_what_was_seen_of_its_statement(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    with world() as platform:
        platform.seen = seen
        platform.advance(30)
        a_write_whose_worker_dies(platform, monkeypatch)
        with platform.transaction() as connection:
            rows = connection.exec_driver_sql("SELECT status, error FROM query").fetchall()
        assert [tuple(row) for row in rows] == [("failed", query_tasks.with_seen(query_tasks.LOST_WRITE, seen))]


class Delays(RuleBasedStateMachine):
    """Delayed messages between workers that reschedule them and senders that die, around the same Redis."""

    def __init__(self) -> None:
        super().__init__()
        self._around = world()
        self.world = self._around.__enter__()
        self.last: dict[str, int] = {}

    @rule(task=st.sampled_from("ab"), seconds=st.sampled_from([0.0, 1.0, 20.0]))
    def reschedule(self, task: str, seconds: float) -> None:
        """A delivery of the task wants to come again, whether it waits already, is being sent, or neither."""
        self.last[task] = self.last.get(task, 0) + 1
        delayed_messages.send_later(TaskMessage("t", task, [self.last[task]], {}, "q", None, None, {}), seconds)

    @rule()
    def start_sender(self) -> None:
        self.world.sender()

    @rule(task=st.sampled_from("ab"), seconds=st.sampled_from([0.0, 20.0]))
    def reschedule_while_it_is_sent(self, task: str, seconds: float) -> None:
        """A worker is quicker with the message than its sender."""
        self.reschedule(task, 0.0)
        sender, before = self.world.sender(), len(self.world.sent)
        while sender.runnable and len(self.world.sent) == before:
            sender.step()
        self.reschedule(task, seconds)

    @precondition(lambda self: any(actor.runnable for actor in self.world.actors))
    @rule(data=st.data())
    def step(self, data: Any) -> None:
        data.draw(st.sampled_from([it for it in self.world.actors if it.runnable])).step()

    @precondition(lambda self: self.world.actors)
    @rule(data=st.data())
    def kill_sender(self, data: Any) -> None:
        actor = data.draw(st.sampled_from(self.world.actors))
        actor.kill()
        self.world.actors.remove(actor)

    @rule(ticks=st.integers(1, 90))
    def time_passes(self, ticks: int) -> None:
        for _ in range(ticks):
            self.world.tick()

    @rule(lost=st.sampled_from([0.0, TICK, 1.0]))
    def crash_redis(self, lost: float) -> None:
        """What was scheduled in the last moment is lost: the reaper's to find, and nobody's here."""
        self.world.crash_redis(lost, 0)
        kept = self.world.waiting()
        self.last = {task: number for task, number in self.last.items() if task in kept}
        for task in self.last:
            self.last[task] = delayed_number(task)

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.world.violations == []

    def teardown(self) -> None:
        """What a delivery wanted last is sent, and nothing stays."""
        try:
            self.world.run()
            for _ in range(90):
                self.world.tick()
                delayed_messages.send_due(None)
            assert self.world.waiting() == set()
            sent = {(message.task_id, message.args[0]) for message in self.world.sent}
            assert set(self.last.items()) <= sent
        finally:
            self._around.__exit__(None, None, None)


def delayed_number(task: str) -> int:
    """Which of the task's messages Redis has."""
    client: Any = coordination.client()
    kept = client.hget(coordination.key(delayed_messages.MESSAGES), task)
    return int(TaskMessage.from_json(kept.decode().split(" ", 2)[2]).args[0])


def test_what_is_delayed_is_sent_as_it_was_wanted_last() -> None:
    run_state_machine_as_test(Delays, settings=SETTINGS)


def test_the_machine_finds_that_a_rescheduled_message_is_removed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        removes_what_was_rescheduled(patch)
        with pytest.raises(AssertionError):
            run_state_machine_as_test(Delays, settings=settings(SETTINGS, max_examples=400, phases=[Phase.generate]))
