"""What a worker's parent does in threads never meets a fork."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtime.broker import delayed_messages, fork_safety, reserved_tasks
from runtime.queries import lost_children
from runtime.queries.query_tasks import Work


def test_a_child_is_not_forked_while_a_thread_has_a_lock() -> None:
    """A lock as libpq has, which the child would find locked for ever."""
    library = threading.Lock()
    inside = threading.Event()

    def connect() -> None:
        with fork_safety.undisturbed(), library:
            inside.set()
            time.sleep(0.3)

    thread = threading.Thread(target=connect)
    thread.start()
    assert inside.wait(5)
    child = os.fork()
    if child == 0:
        free = library.acquire(timeout=1)
        # The child, too, may use threads of its own.
        with fork_safety.undisturbed():
            os._exit(0 if free else 1)
    _, status = os.waitpid(child, 0)
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    with fork_safety.undisturbed():
        pass


def publishes(seen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserved_tasks, "reserved_here", list)
    monkeypatch.setattr(reserved_tasks, "begin", lambda *_: None)
    monkeypatch.setattr(reserved_tasks, "publish", seen)
    monkeypatch.setattr(reserved_tasks, "withdraw", lambda _: None)
    publisher = reserved_tasks.Publisher("w", lambda: reserved_tasks.Service(("default",), 2))
    publisher._ended.set()
    publisher._run()


def sends(seen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed_messages, "SWEEP_SECONDS", 0)
    sender = delayed_messages.Sender(None)
    monkeypatch.setattr(delayed_messages, "_take_due", lambda: [("1", "")])

    def once(*_: object) -> bool:
        sender.end()
        seen()
        return True

    monkeypatch.setattr(delayed_messages, "_send", once)
    sender._run()


def ends(seen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_children, "TRIES", 1)
    lost_children._try(cast(Work, SimpleNamespace(kind="sql", subject="1")), seen)


@pytest.mark.parametrize("outcome", ["succeeds", "fails"])
@pytest.mark.parametrize("do", [publishes, sends, ends])
def test_the_threads_that_talk_to_redis_and_postgresql_keep_forks_away(
    do: Callable[[Callable[..., Any], pytest.MonkeyPatch], None], outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they work, and while they say how it went."""
    may_fork: list[bool] = []

    def ask() -> None:
        may_fork.append(fork_safety._lock.acquire(blocking=False))
        if may_fork[-1]:
            fork_safety._lock.release()

    def seen(*_: object) -> None:
        # As the thread that forks, which is another one.
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        if outcome == "fails":
            raise OSError("away")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()

    handler = Handler()
    logger = logging.getLogger("runtime")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(handler)
    try:
        do(seen, monkeypatch)
    finally:
        logger.removeHandler(handler)
    ask()
    assert may_fork[-1]
    assert may_fork[:-1] == [False] * (2 if outcome == "fails" or do is ends else 1)


def test_children_are_forked_between_two_delayed_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a thread that forks sees it: one that waits for the lock has it before the sender sends the next message."""
    monkeypatch.setattr(delayed_messages, "_take_due", lambda: [("1", ""), ("2", "")])
    order: list[str] = []
    forked = threading.Event()

    class Lock:
        """Hands over to the thread that forks, if one waits, before it is taken again."""

        def __init__(self) -> None:
            self._lock = threading.RLock()

        def __enter__(self) -> None:
            if "send 1" in order:
                assert forked.wait(10), "the lock was kept from one message to the next"
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    lock = Lock()

    def fork() -> None:
        with lock._lock:
            order.append("fork")
            forked.set()

    def send(app: Any, task_id: str, kept: str) -> bool:
        order.append(f"send {task_id}")
        if task_id == "1":
            threading.Thread(target=fork, daemon=True).start()
        return True

    monkeypatch.setattr(fork_safety, "_lock", lock)
    monkeypatch.setattr(delayed_messages, "_send", send)
    assert delayed_messages.send_due(None) == 2
    assert order == ["send 1", "fork", "send 2"]
