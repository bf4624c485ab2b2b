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
    monkeypatch.setattr(reserved_tasks, "held_here", list)
    monkeypatch.setattr(reserved_tasks, "publish", seen)
    monkeypatch.setattr(reserved_tasks, "withdraw", lambda _: None)
    publisher = reserved_tasks.Publisher("w", lambda: reserved_tasks.Service(("default",), 2))
    publisher._ended.set()
    publisher._run()


def sends(seen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed_messages, "LOOK_SECONDS", 0)
    sender = delayed_messages.Sender(None)

    def once(app: Any) -> None:
        sender.end()
        seen(app)

    monkeypatch.setattr(delayed_messages, "send_due", once)
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
