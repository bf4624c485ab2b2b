"""Statements are cancelled in another process, which has Superset: it is there only while something looks lost.

It answers each line of JSON, `[ids of queries, seconds]`, with a line; before that it says in one that it is ready.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO, cast

from runtime.queries.interfaces import Seen

logger = logging.getLogger(__name__)

#: For how long the process may start: as long as a worker's or a web process does on a busy machine.
START_SECONDS = 60.0
#: It ends when for so long nothing looked lost.
IDLE_SECONDS = 60.0
#: How much longer than it was told it may take to answer: it ends what it does by its own clock.
GRACE_SECONDS = 5.0
#: Begins its answer, where the databases have answered or were too late; what was seen of each statement follows, as JSON.
#: Anything else says what went wrong.
ANSWERED = "answered "


class CancellerError(Exception):
    """The process that cancels did not start, ended, or did not answer."""


class Canceller:
    """A process of `command` that cancels statements: started when one is expected, and ended by `rest`.

    One thread uses it.
    """

    def __init__(self, command: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._command = list(command)
        self._clock = clock
        self._process: _Process | None = None
        self._wanted_at = float("-inf")

    def expect(self) -> None:
        """Have it started, unless it runs. It never fails: `cancel` tries again."""
        self._wanted_at = self._clock()
        try:
            self._running()
        except OSError:
            logger.warning("the process that cancels statements cannot be started", exc_info=True)

    def cancel(self, query_ids: Sequence[int], seconds: float) -> dict[int, Seen]:
        """Cancel the statements of these queries, and say what was seen of each; returns when all databases have answered, and
        `seconds` after it was ready at the latest. CancellerError where it cannot be asked: they may go on.
        """
        self._wanted_at = self._clock()
        try:
            process = self._running()
            process.await_ready()
            process.ask([list(query_ids), seconds])
            return process.await_answer(seconds + GRACE_SECONDS)
        except (OSError, CancellerError) as error:
            self._end()
            raise CancellerError(f"statements of queries {list(query_ids)} could not be cancelled: {error}") from error

    def rest(self) -> None:
        """End it where nothing was lost for a while: it is the whole application, in memory."""
        if self._process is not None and self._clock() - self._wanted_at > IDLE_SECONDS:
            self._end()

    def _running(self) -> _Process:
        if self._process is None or not self._process.lives():
            self._end()
            self._process = _Process(self._command)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    """The process, and what it says."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._said: SimpleQueue[str] = SimpleQueue()
        self._ready = False
        threading.Thread(target=self._read, name="canceller", daemon=True).start()

    def _read(self) -> None:
        with cast("IO[str]", self._process.stdout) as said:
            for line in said:
                self._said.put(line.strip())
        # Whoever waits learns that it has ended.
        self._said.put("")

    def lives(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def await_ready(self) -> None:
        """Wait until it has started; CancellerError where it does not."""
        if not self._ready:
            self.await_line(START_SECONDS)
            self._ready = True

    def ask(self, what: object) -> None:
        """Say a line to it; OSError where it has ended."""
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(f"{json.dumps(what)}\n")
        stdin.flush()

    def await_answer(self, seconds: float) -> dict[int, Seen]:
        """What it has seen, once it has done what it was asked; CancellerError where it has not, or is silent for `seconds`."""
        answer = self.await_line(seconds)
        if not answer.startswith(ANSWERED):
            raise CancellerError(answer)
        seen = cast("dict[str, Seen]", json.loads(answer.removeprefix(ANSWERED)))
        return {int(query_id): each for query_id, each in seen.items()}

    def await_line(self, seconds: float) -> str:
        """The next line that it says; CancellerError where none comes."""
        try:
            line = self._said.get(timeout=seconds)
        except Empty:
            raise CancellerError(f"their process said nothing for {seconds:.0f} s") from None
        if not line:
            raise CancellerError(f"their process ended, with {self._process.wait()}")
        return line

    def end(self) -> None:
        """Have it end, whatever it does."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            # What it has not read is lost.
            cast("IO[str]", self._process.stdin).close()
