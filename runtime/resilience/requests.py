"""What a worker's parent process does when a child is gone: the query's end does not wait for the reaper.

Celery asks a task for its class of requests (`Task.Request`), and calls it in the parent. As shipped (5.6) the hard limit
sends no signal, and neither it nor a lost child says anything to Superset: the query stays `running`, and the browser of a
chart waits, for ever. Imported only by Celery.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

from runtime import executions
from runtime.executions import Outcome
from runtime.resilience import database, endings, forks, leases, work

logger = logging.getLogger(__name__)

#: How often, and how far apart, the parent tries to write an end. After that it is the reaper's.
TRIES, TRY_SECONDS = 5, 3.0

_shipped: Any = import_module("celery.worker.request")


class Request(_shipped.Request):
    """A request of Superset's query tasks."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The child has reached a limit; at the hard one it is about to be killed, and its message is done with."""
        _shipped.Request.on_timeout(self, soft, timeout)
        if not soft:
            _bury(self)
            _later(self, lambda asked: _end(asked, work.hard_limit(timeout), "timed_out"))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The task has failed, or its child is gone."""
        # Celery hands it over in a wrapper that keeps the traceback.
        if type(getattr(exc_info.exception, "exc", exc_info.exception)).__name__ == "WorkerLostError":
            # Before the message goes back: whoever takes it must not wait for the lease of a dead process.
            _bury(self)
            again = self.task.acks_late and self.task.reject_on_worker_lost
            if again:
                _comes_next(self.message)
            _later(self, _end_write if again else lambda asked: _end(asked, work.LOST_READ, "lost"))
        return _shipped.Request.on_failure(self, exc_info, send_failed_event=send_failed_event, return_ok=return_ok)


def _comes_next(message: Any) -> None:
    """Have the message, when it is given back, be the next one, and not behind all that waits.

    As shipped (kombu 5.6) Redis's transport puts it last. Celery gives it back a turn of its loop later.
    """
    base = import_module("kombu.transport.virtual.base")

    def reject(requeue: bool = False) -> None:
        if not requeue:
            cast(Any, type(message)).reject(message)
            return
        message.channel.qos.restore_by_tag(message.delivery_tag)
        # Only what this process remembers: in the broker the message may be another worker's by now.
        base.QoS.ack(message.channel.qos, message.delivery_tag)
        message._state = "REQUEUED"
        if wake := getattr(message.channel, "wake", None):
            wake()

    message.reject = reject


def _bury(request: Any) -> None:
    asked = work.of(request.task.name, request.args, request.kwargs)
    if asked is None or not request.worker_pid:
        return
    try:
        leases.bury(asked.kind, asked.subject, str(request.hostname), int(request.worker_pid))
    except Exception as error:
        logger.warning("lease of %s %s is left to expire: %s", asked.kind, asked.subject, error)


def _end_write(asked: work.Work) -> None:
    """End what is not to be executed again now, instead of when its message is delivered again."""
    if asked.kind == "sql":
        with database.transaction() as connection:
            endings.refuse_write(connection, int(asked.subject))


def _end(asked: work.Work, message: str, outcome: Outcome) -> None:
    """End what nobody will finish."""
    with database.transaction() as connection:
        last = executions.last(connection, asked.kind, asked.subject)
        if last is not None and last.writes and outcome == "lost":
            message = work.LOST_WRITE
        if asked.kind == "sql":
            endings.end_query(connection, int(asked.subject), message)
        elif last is None or last.outcome is None:
            endings.end_chart(asked.job, message)
        executions.end(connection, asked.kind, asked.subject, outcome)


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="endings")


def _later(request: Any, end: Callable[[work.Work], None]) -> None:
    """Have `end` called outside of the event loop, which must not wait for a database."""
    asked = work.of(request.task.name, request.args, request.kwargs)
    if asked is not None:
        _thread().submit(_try, asked, end)


def _try(asked: work.Work, end: Callable[[work.Work], None]) -> None:
    for attempt in range(TRIES):
        if attempt:
            time.sleep(TRY_SECONDS)
        # The child is gone, and the next one is about to be forked.
        with forks.undisturbed():
            try:
                end(asked)
            except Exception as error:
                logger.warning("the end of %s %s was not written: %s", asked.kind, asked.subject, error)
            else:
                logger.info("%s %s: its child is gone, and its end is written where it has one", asked.kind, asked.subject)
                return
