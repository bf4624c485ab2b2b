"""Leases and delayed messages on a real Valkey, as the broker's user, who may not do everything."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from runtime.broker import delayed_messages, reserved_tasks
from runtime.broker.task_messages import TaskMessage
from runtime.queries import leases
from runtime.queries.leases import Held, Owner, Renewal, Taken
from tests.runtime.conftest import until

pytestmark = pytest.mark.superset


@pytest.fixture
def subject(coordination: Any) -> str:
    return f"subject-{time.monotonic_ns()}"


def owner(pid: int = 1, worker: str = "w@h") -> Owner:
    return Owner(worker, pid, "task")


def test_a_lease_is_of_one_at_a_time(subject: str) -> None:
    first, second = owner(1), owner(2)
    assert leases.holder("sql", subject) is None
    assert leases.take("sql", subject, first) == Taken(previous_gone=False)
    assert leases.take("sql", subject, first) == Taken(previous_gone=False)
    held = leases.take("sql", subject, second)
    assert isinstance(held, Held)
    assert held.owner == first
    assert leases.holders("sql", [subject, "nobody's"]) == {subject: first}
    assert leases.holder("chart", subject) is None
    assert not leases.renew("sql", subject, second)
    assert not leases.release("sql", subject, second)
    assert leases.holder("sql", subject) == first
    assert leases.renew("sql", subject, first)
    assert leases.release("sql", subject, first)
    assert leases.take("sql", subject, second) == Taken(previous_gone=False)


def test_a_lost_lease_is_taken_anew_unless_somebody_has_it(subject: str, coordination: Any) -> None:
    first, second = owner(1), owner(2)
    leases.take("sql", subject, first)
    coordination.client().delete(coordination.key("lease", "sql", subject))
    assert leases.renew("sql", subject, first)
    assert leases.holder("sql", subject) == first
    coordination.client().delete(coordination.key("lease", "sql", subject))
    leases.take("sql", subject, second)
    assert not leases.renew("sql", subject, first)


def test_only_its_parent_buries_a_lease(subject: str) -> None:
    first = owner(12)
    leases.take("sql", subject, first)
    assert not leases.bury("sql", subject, "w@h", 1)
    assert not leases.bury("sql", subject, "other@h", 12)
    assert leases.holder("sql", subject) == first
    assert leases.bury("sql", subject, "w@h", 12)
    assert leases.holder("sql", subject) is None
    # What is buried does not rise, and the next one knows that it has not to wait.
    assert not leases.renew("sql", subject, first)
    assert leases.take("sql", subject, owner(13)) == Taken(previous_gone=True)


def test_a_renewal_outlives_the_time_and_the_loss_of_a_lease(
    subject: str, coordination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "TTL_SECONDS", 0.6)
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    first = owner()
    leases.take("sql", subject, first)
    renewal = Renewal("sql", subject, first)
    renewal.start()
    time.sleep(1)
    assert leases.holder("sql", subject) == first
    coordination.client().delete(coordination.key("lease", "sql", subject))
    until(lambda: leases.holder("sql", subject) == first, 5, "it is taken anew")
    renewal.end()
    assert leases.holder("sql", subject) is None
    time.sleep(0.3)
    assert leases.holder("sql", subject) is None


def test_a_fork_has_connections_of_its_own(subject: str, coordination: Any) -> None:
    """Both use the client at once, and each reads its own answers."""
    first = owner()
    leases.take("sql", subject, first)
    pid = os.fork()
    if pid == 0:
        wrong = sum(leases.holder("sql", subject) != first for _ in range(300))
        os._exit(1 if wrong else 0)
    assert all(leases.take("sql", subject, owner(2)) != Taken(previous_gone=False) for _ in range(300))
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


def test_what_workers_hold_is_what_they_last_said(subject: str, coordination: Any) -> None:
    reserved_tasks.publish("a@h", frozenset({f"{subject}-1", f"{subject}-2"}), time.time())
    reserved_tasks.publish("b@h", frozenset({f"{subject}-3"}), time.time())
    assert {f"{subject}-{n}" for n in (1, 2, 3)} <= reserved_tasks.held()
    reserved_tasks.publish("a@h", frozenset({f"{subject}-2"}), time.time())
    assert f"{subject}-1" not in reserved_tasks.held()
    reserved_tasks.withdraw("b@h")
    assert f"{subject}-3" not in reserved_tasks.held()
    assert {holding.worker for holding in reserved_tasks.holdings()} >= {"a@h"}
    reserved_tasks.withdraw("a@h")
