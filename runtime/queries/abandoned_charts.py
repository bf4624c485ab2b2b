"""Charts that nobody waits for any more: the tab is closed, and the job would run to its limit.

A page asks for the events of its channel, twice a second, as long as it waits for a chart, and each time that is noted here. A
job is abandoned when its channel, and that of each job which follows it, has asked since it was submitted and has then been
silent. One that nobody has ever asked for was sent by a program, such as a warm-up, and is left alone.

The reaper marks an abandoned job, and the web process one that its page stops (`runtime.queries.chart_stops`). A worker that is
handed a marked job does not begin it; the child that executes one looks for the mark, and cancels its statement.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar

from runtime.environment import coordination

logger = logging.getLogger(__name__)

#: Starts the key of a channel with when it was last asked for, in seconds since the epoch.
POLLED = "polled"
#: Starts the key that marks an abandoned job.
STOPPED = "abandoned"
#: A process notes a channel at most this often.
NOTE_SECONDS = 5.0
#: A browser lets a hidden tab ask once a minute.
SILENT_SECONDS = 180.0
#: How often the child that executes a chart looks whether it is marked.
LOOK_SECONDS = 5.0
#: Both keys end by themselves.
KEPT_SECONDS = 24 * 3600
#: Channels that a process remembers to have noted.
NOTED = 10_000

#: What a page reads that comes back after all: from a machine that slept.
ABANDONED = "This chart was stopped, since no page had waited for it for three minutes. Load the chart again."

_noted: dict[str, float] = {}


def note(channel: str) -> None:
    """A page waits for events of `channel`. It never fails: without Redis nobody is told of events either."""
    now = time.monotonic()
    if now - _noted.get(channel, float("-inf")) < NOTE_SECONDS:
        return
    if len(_noted) >= NOTED:
        _noted.clear()
    _noted[channel] = now
    try:
        coordination.client().set(coordination.key(POLLED, channel), time.time(), ex=KEPT_SECONDS)
    except Exception:
        logger.warning("it was not noted that a page waits for its charts", exc_info=True)


def polled(channels: Iterable[str]) -> dict[str, float]:
    """When each of `channels` was last asked for; those that never were are left out. Raises what redis-py raises."""
    asked = list(channels)
    found = coordination.client().mget([coordination.key(POLLED, channel) for channel in asked]) if asked else []
    return {channel: float(value) for channel, value in zip(asked, found, strict=True) if value is not None}


def is_wanted(channels: Iterable[str], polled: dict[str, float], submitted_at: float, now: float) -> bool:
    """Whether somebody may still wait on one of a job's channels: its own, and those of its followers."""
    return any(
        (last := polled.get(channel)) is None or last < submitted_at or now - last <= SILENT_SECONDS for channel in channels
    )


def stop(job_id: str) -> None:
    """Mark a job: who executes it cancels it, and nobody begins it. Raises what redis-py raises."""
    coordination.client().set(coordination.key(STOPPED, job_id), 1, ex=KEPT_SECONDS)


def is_stopped(job_id: str) -> bool:
    """Whether it is marked. Raises what redis-py raises."""
    return bool(coordination.client().exists(coordination.key(STOPPED, job_id)))


class Watch:
    """The thread of a child that looks, while it executes a chart, whether that is abandoned; it cancels its statement then."""

    def __init__(self, job_id: str) -> None:
        self.stopped = False
        self._job_id = job_id
        self._cancel: Callable[[], None] | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="abandoned-chart", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """The chart has ended: from here on nothing is cancelled, since another's statement may be next."""
        self._ended.set()
        with self._lock:
            self._cancel = None

    def executes(self, cancel: Callable[[], None]) -> None:
        """A statement begins, which `cancel` ends, called from another thread."""
        self._cancel = cancel

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self.stopped = self.stopped or is_stopped(self._job_id)
                with self._lock:
                    if self.stopped and self._cancel is not None:
                        logger.info("chart %s is abandoned: its statement is cancelled", self._job_id)
                        self._cancel()
            except Exception:
                logger.warning("chart %s goes on: whether it is abandoned is not known", self._job_id, exc_info=True)


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(job_id: str) -> Generator[Watch]:
    """Look, for the length of the block, whether the chart that it executes is abandoned."""
    watch = Watch(job_id)
    token = _watch.set(watch)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()
        _watch.reset(token)


def executes(cancel: Callable[[], None]) -> None:
    """A statement begins in this task, which `cancel` ends; outside of a chart's task nothing is done."""
    if (watch := _watch.get()) is not None:
        watch.executes(cancel)


def is_abandoned() -> bool:
    """Whether the chart of this task was stopped since nobody waits for it."""
    watch = _watch.get()
    return watch is not None and watch.stopped
