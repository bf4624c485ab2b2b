"""Answers of slow look-ups that a process keeps for seconds, and forgets sooner when somebody says that something has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from runtime.environment.shared_version import SharedVersion

#: More answers than this, and all are forgotten.
MOST = 20_000

T = TypeVar("T")


class KeptAnswers:
    """Answers that are kept for `seconds` at most; `version` says when all of them are to be forgotten."""

    def __init__(self, version: SharedVersion, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._version, self._seconds, self._clock = version, seconds, clock
        self.in_child()

    def in_child(self) -> None:
        """Start anew, in a process that was forked."""
        self._version.forget()
        self._lock = threading.Lock()
        self._answers: dict[Hashable, tuple[float, object]] = {}
        self._generation = 0

    def get(self, key: Hashable, look_up: Callable[[], T]) -> T:
        """The answer that `look_up` gave for `key`, or gives now. What it raises is not kept."""
        if self._version.is_new():
            self.forget()
        found = self._answers.get(key)
        if found is not None and self._clock() < found[0]:
            return cast(T, found[1])
        generation, until = self._generation, self._clock() + self._seconds
        answer = look_up()
        with self._lock:
            # What was read before a change is not kept after it.
            if generation == self._generation:
                if len(self._answers) >= MOST:
                    self._answers.clear()
                self._answers[key] = (until, answer)
        return answer

    def forget(self) -> None:
        """Keep nothing from before now."""
        with self._lock:
            self._generation += 1
            self._answers = {}

    def changed(self) -> None:
        """Something was changed here: forget it, and have every process forget it."""
        self.forget()
        self._version.change()
