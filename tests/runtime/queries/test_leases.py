"""Leases, delayed messages and reserved tasks on a real Valkey, as the broker's user, who may not do everything."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from runtime.broker import delayed_messages, reserved_tasks
from runtime.broker.task_messages import TaskMessage
from runtime.environment import leases
from runtime.environment.counters import COUNTERS
from runtime.environment.leases import Held, Keeper, Lease, Taken
from runtime.environment.restarts import RestartDetector
from runtime.queries import execution_leases
from runtime.queries.execution_leases import Owner
from tests.runtime.conftest import OPERATOR_PASSWORD, Prepared, until

pytestmark = pytest.mark.superset


@pytest.fixture
def subject(coordination: Any) -> str:
    return f"subject-{time.monotonic_ns()}"


@pytest.fixture
def operator(prepared: Prepared) -> Iterator[Any]:
    """Who may change the server's settings."""
    server: Any = Redis(port=prepared.services.redis_port, username="operator", password=OPERATOR_PASSWORD)
    try:
        yield server
    finally:
        server.config_set("maxmemory", 0)
        server.close()


def owner(pid: int = 1, worker: str = "w@h") -> Owner:
    return Owner(worker, pid, "task")


def lease(subject: str, holder: Owner) -> Lease:
    return execution_leases.lease("sql", subject, holder)


def poison(coordination: Any) -> int:
    """How many values were dropped as none of ours."""
    counted = coordination.client().hgetall(coordination.key(COUNTERS))
    return sum(int(value) for field, value in counted.items() if b"superset_async_poison_total" in field)


def test_a_lease_is_of_one_at_a_time(subject: str) -> None:
    first, second = (lease(subject, owner(pid)) for pid in (1, 2))
    assert execution_leases.owner("sql", subject) is None
    assert leases.take(first) == Taken(previous_gone=False)
    assert leases.take(first) == Taken(previous_gone=False)
    held = leases.take(second)
    assert isinstance(held, Held)
    assert held.holder == first.holder
    assert execution_leases.owners("sql", [subject, "nobody's"]) == {subject: Owner.parse(first.holder)}
    assert execution_leases.owner("chart", subject) is None
    assert not leases.renew(second)
    assert not leases.release(second)
    assert execution_leases.owner("sql", subject) == Owner.parse(first.holder)
    assert leases.renew(first)
    assert leases.release(first)
    assert leases.take(second) == Taken(previous_gone=False)


def test_a_lost_lease_is_taken_again_unless_somebody_has_it(subject: str, coordination: Any) -> None:
    first, second = (lease(subject, owner(pid)) for pid in (1, 2))
    leases.take(first)
    coordination.client().delete(first.key)
    assert leases.renew(first)
    assert leases.holders([first.name]) == {first.name: first.holder}
    coordination.client().delete(first.key)
    leases.take(second)
    assert not leases.renew(first)


def test_only_its_parent_buries_a_lease(subject: str) -> None:
    first = lease(subject, owner(12))
    # What Redis has lost may be another's.
    assert not execution_leases.bury("sql", subject, "w@h", 12)
    leases.take(first)
    assert not execution_leases.bury("sql", subject, "w@h", 1)
    assert not execution_leases.bury("sql", subject, "other@h", 12)
    assert leases.holders([first.name]) == {first.name: first.holder}
    assert execution_leases.bury("sql", subject, "w@h", 12)
    assert execution_leases.owner("sql", subject) is None
    # What is buried does not rise, and the next one knows that it has not to wait.
    assert not leases.renew(first)
    assert leases.falls_silent(lease(subject, owner(13)), 0)
    assert leases.take(lease(subject, owner(13))) == Taken(previous_gone=True)


def test_a_lease_is_handed_over_by_its_holder_and_not_from_another(subject: str) -> None:
    claim, other = lease(subject, owner(0)), lease(subject, owner(2))
    leases.take(claim)
    assert leases.hand_over(other, str(owner(3))) == other
    child = owner(12)
    assert leases.hand_over(claim, str(child)) == lease(subject, child)
    assert execution_leases.owner("sql", subject) == child
    assert not leases.renew(claim)


def test_the_keeper_outlives_the_time_and_the_loss_of_a_lease(
    subject: str, coordination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    keeper = Keeper()
    first = Lease(f"lease:{subject}", "first", 0.5)
    other = Lease(f"lease:{subject}-other", "other", 0.5)
    for each in (first, other):
        leases.take(each)
        keeper.keep(each)
    begun = time.monotonic()
    until(lambda: time.monotonic() > begun + 2 * first.seconds, 30, "twice its time has passed")
    assert leases.holders([first.name, other.name]) == {first.name: "first", other.name: "other"}
    coordination.client().delete(first.key)
    until(lambda: first.name in leases.holders([first.name]), 30, "it is taken again")
    keeper.give_back(first)
    assert not keeper.keeps(first)
    # A renewal that was under way may take it again, and gives it back.
    until(lambda: not leases.holders([first.name]), 30, "it is given back")
    keeper.give_back(other)


def test_leases_are_renewed_by_a_full_redis(subject: str, coordination: Any, operator: Any) -> None:
    first, lost = lease(subject, owner()), lease(f"{subject}-lost", owner())
    leases.take(first)
    coordination.client().pexpire(first.key, 500)
    operator.config_set("maxmemory", 1)
    keeper = Keeper()
    keeper._until = {first: float("inf"), lost: float("inf")}
    keeper.renew_all()
    assert coordination.client().pttl(first.key) > 1000 * (first.seconds - 5)
    # One that is not there needs memory: it is refused, and keeps the other from nothing.
    assert leases.holders([lost.name]) == {}
    operator.config_set("maxmemory", 0)
    keeper.renew_all()
    assert leases.holders([lost.name]) == {lost.name: lost.holder}
    for each in (first, lost):
        keeper.give_back(each)


def test_a_restart_is_known_from_a_new_connection(coordination: Any, operator: Any) -> None:
    detector = RestartDetector()
    assert [detector.is_same(coordination.client()) for _ in range(3)] == [False, True, True]
    operator.client_kill_filter(_type="normal", skipme=True)
    coordination.client().connection_pool.disconnect()
    assert detector.is_same(coordination.client())
    # What a server has after a restart: nothing of this.
    operator.script_flush()
    assert [detector.is_same(coordination.client()) for _ in range(2)] == [False, True]


def test_a_lease_that_names_nobody_is_removed_and_hides_no_other(subject: str, coordination: Any) -> None:
    before = poison(coordination)
    for number, value in enumerate((b"", b"forged", b"a b c d", b"\xff 1 t w x")):
        coordination.client().set(lease(f"{subject}-{number}", owner()).key, value or b" ")
    leases.take(lease(subject, owner()))
    assert set(execution_leases.owners("sql", [subject, *(f"{subject}-{number}" for number in range(4))])) == {subject}
    assert poison(coordination) == before + 4
    coordination.client().set(lease(f"{subject}-0", owner()).key, b"forged")
    assert execution_leases.take(lease(f"{subject}-0", owner())) == Taken(previous_gone=False)


def test_a_fork_has_connections_of_its_own(subject: str, coordination: Any) -> None:
    """Both use the client at once, and each reads its own answers."""
    first, second = (lease(subject, owner(pid)) for pid in (1, 2))
    leases.take(first)
    pid = os.fork()
    if pid == 0:
        wrong = sum(leases.holders([first.name]) != {first.name: first.holder} for _ in range(300))
        os._exit(1 if wrong else 0)
    assert all(isinstance(leases.take(second), Held) for _ in range(300))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class App:
    """As much of Celery as a delayed message needs, which refuses the first one."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.refuses = True

    def send(self, message: TaskMessage) -> None:
        if self.refuses:
            self.refuses = False
            raise ConnectionError("the broker is away")
        self.sent.append((message.task_id, message.kwargs))


def test_a_delayed_message_is_sent_once_when_it_is_due(
    subject: str, coordination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_messages, "SEND_SECONDS", 0.2)
    # A worker of this folder's tests sends what is due in the real ones.
    monkeypatch.setattr(delayed_messages, "DELAYED", f"{delayed_messages.DELAYED}:{subject}")
    app = App()
    monkeypatch.setattr(TaskMessage, "send", lambda message, to: to.send(message))
    message, other = (TaskMessage("t", f"{subject}-{n}", [1], {"é": None}, "q", 2, 1, {}) for n in (1, 2))
    delayed_messages.send_later(message, 0.3)
    delayed_messages.send_later(other, 0.3)
    assert delayed_messages.waiting() == {message.task_id, other.task_id}
    assert (delayed_messages.send_due(app), app.sent) == (0, [])
    time.sleep(0.4)
    with pytest.raises(ConnectionError):
        delayed_messages.send_due(app)
    # The one that was refused waits, and the other did not wait for it.
    assert app.sent == [(other.task_id, {"é": None})]
    assert delayed_messages.waiting() == {message.task_id}
    until(lambda: bool(delayed_messages.send_due(app)), 5, "it is due again")
    assert app.sent[1:] == [(message.task_id, {"é": None})]
    assert delayed_messages.waiting() == set()
    assert delayed_messages.send_due(app) == 0
    # One that comes twice to the same delay is one.
    delayed_messages.send_later(message, 60)
    delayed_messages.send_later(message, 90)
    assert delayed_messages.waiting() == {message.task_id}


def test_a_message_that_is_rescheduled_while_it_is_sent_stays(
    subject: str, coordination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_messages, "DELAYED", f"{delayed_messages.DELAYED}:{subject}")
    message = TaskMessage("t", subject, [1], {}, "q", 2, 1, {})
    # The worker that takes it finds that its query still runs elsewhere, before its sender is done with it.
    monkeypatch.setattr(TaskMessage, "send", lambda message, app: delayed_messages.send_later(message, 0))
    delayed_messages.send_later(message, 0)
    assert delayed_messages.send_due(None) == 1
    assert delayed_messages.waiting() == {subject}
    monkeypatch.setattr(TaskMessage, "send", lambda message, app: None)
    assert delayed_messages.send_due(None) == 1
    assert delayed_messages.waiting() == set()


def test_what_is_no_delayed_message_is_removed_and_holds_up_no_other(
    subject: str, coordination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_messages, "DELAYED", f"{delayed_messages.DELAYED}:{subject}")
    sent: list[str] = []
    monkeypatch.setattr(TaskMessage, "send", lambda message, app: sent.append(message.task_id))
    before = poison(coordination)
    forged = {"a": "no message", "b": "word []", "c": 'word {"task": 1}', "d": "word " + "[" * 5000}
    for name, value in forged.items():
        coordination.client().hset(coordination.key(delayed_messages.MESSAGES), f"{subject}-{name}", value)
    names = {f"{subject}-{name}": 1.0 for name in (*forged, "without")}
    coordination.client().zadd(coordination.key(delayed_messages.DELAYED), names)
    delayed_messages.send_later(TaskMessage("t", subject, [1], {}, "q", 2, 1, {}), 0)
    assert (delayed_messages.send_due(None), sent) == (1, [subject])
    assert delayed_messages.waiting() == set()
    assert poison(coordination) == before + 5


def test_what_workers_have_reserved_is_what_they_last_said(subject: str, coordination: Any) -> None:
    reserved_tasks.publish("a@h", frozenset({f"{subject}-1", f"{subject}-2"}), time.time())
    reserved_tasks.publish("b@h", frozenset({f"{subject}-3"}), time.time())
    assert {f"{subject}-{n}" for n in (1, 2, 3)} <= reserved_tasks.reserved()
    reserved_tasks.publish("a@h", frozenset({f"{subject}-2"}), time.time())
    assert f"{subject}-1" not in reserved_tasks.reserved()
    reserved_tasks.withdraw("b@h")
    assert f"{subject}-3" not in reserved_tasks.reserved()
    assert {each.worker for each in reserved_tasks.by_worker()} >= {"a@h"}
    reserved_tasks.withdraw("a@h")


@pytest.mark.parametrize("value", ["", "no JSON", "[]", "{}", '{"reserved": 7, "at": 1}', '{"reserved": [[]], "at": 1}'])
def test_what_names_no_reserved_tasks_is_removed_and_hides_no_other(subject: str, coordination: Any, value: str) -> None:
    before = poison(coordination)
    reserved_tasks.publish("forged@h", frozenset(), time.time())
    coordination.client().set(coordination.key("worker", "forged@h"), value)
    reserved_tasks.publish("right@h", frozenset({subject}), time.time())
    assert subject in reserved_tasks.reserved()
    assert not coordination.client().exists(coordination.key("worker", "forged@h"))
    assert poison(coordination) == before + 1
    for worker in ("forged@h", "right@h"):
        reserved_tasks.withdraw(worker)
