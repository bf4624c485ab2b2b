"""A worker's channel to the broker that drops what is no message of Celery's, and counts it.

As shipped (kombu 5.6, Celery 5.6) such a message ends the worker with an "unrecoverable error"; and one whose envelope is right
and whose content is not is put back as the worker dies, and ends the next worker, so that a single message stops a whole pool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from runtime import coordination, metric_names

logger = logging.getLogger(__name__)

#: What reading something else than a message raises. Errors of the connection are none of these.
MALFORMED = (TypeError, ValueError, LookupError, AttributeError)


def install() -> None:
    """Have this process, if it becomes a Celery worker, survive what is in its queues. To be called after anyone else who
    replaces the channel at a worker's start."""

    def use(**_: Any) -> None:
        transport = import_module("kombu.transport.redis")
        for kind in (transport.Transport, transport.SentinelTransport):
            kind.Channel = guarded(kind.Channel)

    signals = import_module("celery.signals")
    signals.celeryd_init.connect(use, weak=False, dispatch_uid=__name__)
    # Celery drops these by itself.
    signals.task_unknown.connect(_unknown, weak=False)
    signals.task_rejected.connect(_rejected, weak=False)


def _unknown(name: str = "", **_: Any) -> None:
    logger.warning("a message for task %r, which there is not, was dropped", name)
    coordination.count(metric_names.POISON, where="unknown_task")


def _rejected(**_: Any) -> None:
    coordination.count(metric_names.POISON, where="message")


def check(headers: Any) -> None:
    """Raise ValueError for limits that the pool cannot keep: it reads them when a child is free, out of reach of a guard."""
    limits: object = cast("dict[str, object]", headers).get("timelimit") if isinstance(headers, dict) else None
    if limits is None:
        return
    both = cast("list[object]", limits if isinstance(limits, list | tuple) else [])
    if len(both) != 2 or not all(limit is None or (type(limit) in (int, float)) for limit in both):
        raise ValueError(f"timelimit is {limits!r}")


def guarded(base: Any) -> Any:
    """The channel class `base` of kombu's Redis transport, in which a malformed message is dropped."""

    class Channel(base):  # pyright: ignore[reportUntypedBaseClass]
        def _brpop_read(self, **options: Any) -> Any:
            try:
                return base._brpop_read(self, **options)
            except MALFORMED as error:
                # It has left its list, and nobody else will see it.
                return _dropped(error)

        def basic_consume(self, queue: str, *args: Any, callback: Callable[[Any], Any], **kwargs: Any) -> Any:
            def received(message: Any) -> Any:
                try:
                    check(message.headers)
                    return callback(message)
                except MALFORMED as error:
                    if not message.acknowledged:
                        message.reject()
                    return _dropped(error)

            return base.basic_consume(self, queue, *args, callback=received, **kwargs)

    return Channel


def _dropped(error: Exception) -> bool:
    # Not the message itself: it may be anyone's query.
    logger.error("what is no message was dropped from a queue: %s: %s", type(error).__name__, error, exc_info=True)
    coordination.count(metric_names.POISON, where="queue")
    return True
