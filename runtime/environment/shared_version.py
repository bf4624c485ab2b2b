"""A word in the coordination database that changes when something does, so that other processes forget what they keep of it."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable

from runtime.environment import coordination
from runtime.environment.redis_clients import text

logger = logging.getLogger(__name__)

#: The word lives for so long: after that nobody keeps anything from before it.
LIFETIME_SECONDS = 24 * 3600
#: Redis is not asked, or told, again for so long after it did not answer: requests wait for its timeouts.
AWAY_SECONDS = 5.0


class SharedVersion:
    """The version of what `name` says, asked for at most every `ask_seconds`. It never fails: without Redis nothing is new."""

    def __init__(self, name: str, ask_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._ask_seconds, self._clock = name, ask_seconds, clock
        self.forget()

    def forget(self) -> None:
        """Know nothing: in a process that was forked."""
        self._asking = threading.Lock()
        self._seen: str | None = None
        self._ask_at = 0.0

    def is_new(self) -> bool:
        """Whether it has changed since this process last asked; False for all but the first of threads that ask at once."""
        if self._clock() < self._ask_at or not self._asking.acquire(blocking=False):
            return False
        try:
            self._ask_at = self._clock() + self._ask_seconds
            value = coordination.client().get(coordination.key(self._name))
            found = text(value) if value else ""
        except Exception as error:
            self._ask_at = self._clock() + AWAY_SECONDS
            logger.warning("the version of %s could not be read: %s", self._name, error)
            return False
        else:
            before, self._seen = self._seen, found
            return found != before
        finally:
            self._asking.release()

    def change(self) -> None:
        """Say that it has changed, for good: others forget what they keep, within what they keep it for at the latest."""
        try:
            coordination.client().set(coordination.key(self._name), uuid.uuid4().hex, ex=LIFETIME_SECONDS)
        except Exception as error:
            logger.warning("the change of %s was not told to other processes: %s", self._name, error)
