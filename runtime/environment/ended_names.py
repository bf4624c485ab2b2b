"""Names that have ended, such as of log-ins, known to every process of a stack within a second or so.

A stream in the coordination database: the server orders what processes add, so that each reads on from where it was, and one
question a second serves all requests of a process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import cast

from runtime.environment import coordination
from runtime.environment.redis_clients import text

logger = logging.getLogger(__name__)

#: Redis is not asked, or told, again for so long after it did not answer: requests wait for its timeouts.
AWAY_SECONDS = 5.0
#: Names of one answer.
_BATCH = 1000


class EndedNames:
    """The names of `kind` that have ended in the last `lifetime_seconds`, asked for at most every `ask_seconds`.

    It never fails: without Redis what was known holds, and what ends meanwhile is told to others when it answers again.
    """

    def __init__(
        self, kind: str, lifetime_seconds: float, ask_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kind, self._lifetime_seconds, self._ask_seconds, self._clock = kind, lifetime_seconds, ask_seconds, clock
        self.forget()

    def forget(self) -> None:
        """Know nothing: in a process that was forked."""
        self._asking = threading.Lock()
        self._ended: dict[str, int] = {}
        self._untold: list[str] = []
        self._last = "-"
        self._ask_at = 0.0

    def end(self, name: str) -> None:
        """Have `name` ended: here at once, in other processes with the next question."""
        self._ended[name] = int(time.time() * 1000)
        self._untold.append(name)
        self._ask_at = 0.0
        self._exchange()

    def has(self, name: str) -> bool:
        """Whether `name` has ended, as far as this process knows."""
        self._exchange()
        return name in self._ended

    def _exchange(self) -> None:
        """Tell what is untold, and read what others told; nothing where another thread does it, or it was done just now."""
        if self._clock() < self._ask_at or not self._asking.acquire(blocking=False):
            return
        try:
            self._ask_at = self._clock() + self._ask_seconds
            self._tell()
            self._read()
        except Exception as error:
            self._ask_at = self._clock() + AWAY_SECONDS
            logger.warning("which %s have ended could not be exchanged: %s", self._kind, error)
        finally:
            self._asking.release()

    def _tell(self) -> None:
        key, client = coordination.key(self._kind), coordination.client()
        while self._untold:
            oldest = int((time.time() - self._lifetime_seconds) * 1000)
            with client.pipeline() as pipe:
                pipe.xadd(key, {"name": self._untold[0]}, minid=str(oldest))
                pipe.expire(key, int(self._lifetime_seconds))
                pipe.execute()
            del self._untold[0]

    def _read(self) -> None:
        key, client = coordination.key(self._kind), coordination.client()
        while True:
            found = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(key, min=self._last, count=_BATCH))
            for entry, fields in found:
                self._ended[text(fields[b"name"])] = int(text(entry).partition("-")[0])
                self._last = f"({text(entry)}"
            if len(found) < _BATCH:
                break
        oldest = (time.time() - self._lifetime_seconds) * 1000
        for name in [name for name, at in list(self._ended.items()) if at < oldest]:
            del self._ended[name]
