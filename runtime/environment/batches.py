"""Rows that a thread of the process writes together, so that who adds one does not wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

#: Rows that a process holds at most.
MOST = 1000

Row = TypeVar("Row")


class Batches(Generic[Row]):
    """Rows, written by `write` every `every_seconds` while there are any; what it raises has them tried again with the next ones.

    A process that is killed loses those that it had not written. Beyond `most` rows `merge` may say the same with fewer; then the
    oldest are dropped, and counted in the log.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Row]], None],
        every_seconds: float,
        most: int = MOST,
        merge: Callable[[Sequence[Row]], list[Row]] = list,
    ) -> None:
        self._name, self._write, self._every_seconds = name, write, every_seconds
        self._most, self._merge = most, merge
        self.forget()

    def forget(self) -> None:
        """Have none: after a fork they are the parent's, and so is the thread."""
        self._rows: list[Row] = []
        self._dropped = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._added = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Have rows written soon. It never fails, and never waits."""
        with self._lock:
            self._rows += rows
            self._bound()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self._added.set()

    def flush(self) -> None:
        """Write what is there. It never fails."""
        with self._writing:
            with self._lock:
                rows, self._rows = self._rows, []
            try:
                if rows:
                    self._write(rows)
            except Exception as error:
                logger.warning("%d %s wait to be written: %s", len(rows), self._name, error)
                with self._lock:
                    self._rows = rows + self._rows
                    self._bound()
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                logger.warning("%d %s were dropped: they could not be written for too long", dropped, self._name)

    def _bound(self) -> None:
        if len(self._rows) <= self._most:
            return
        self._rows = self._merge(self._rows)
        beyond = len(self._rows) - self._most
        if beyond > 0:
            del self._rows[:beyond]
            self._dropped += beyond

    def _run(self) -> None:
        while True:
            self._added.wait()
            time.sleep(self._every_seconds)
            self._added.clear()
            self.flush()
