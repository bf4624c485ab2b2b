"""A worker's channel to the broker: kombu's Redis channel, strict with what is no message, and fair between queues.

The one place that replaces kombu's channel (`Transport.Channel` and `SentinelTransport.Channel` of `kombu.transport.redis`;
read and tested with kombu 5.6).

Signed: what `runtime.broker.signatures` refuses is dropped and counted before anything of it is read.

Strict: as shipped, what is no message of Celery's ends the worker with an "unrecoverable error"; and one whose envelope is right
and whose content is not is put back as the worker dies, and ends the next worker, so that a single message stops a whole pool.
Here it is dropped and counted, where `check` says so. An error that the worker raises for a message that is right stays the
worker's: a broken deployment must not empty the queues.

Fair, in a worker of several queues with shares: as shipped a channel asks all of its queues in turns, whatever the worker has
taken of each. Here it asks those that a `QueueOrder` allows. A question (BRPOP) stays with the server for up to a second, with
the queues of its beginning: one that was left out because it was at its bound, and is below it a moment later, would be heard
only at the next question, so that a tenant of short queries could run no more than its bound each second. So the end of a task
ends such a question at once, by a message to a list of the worker's own.

(No upstream issue known.)
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, cast

from celery import signals
from celery.worker import state
from kombu.exceptions import ContentDisallowed
from kombu.transport import redis as transport

from runtime.broker.signatures import SignatureError
from runtime.environment import counters, versions
from topology import metric_names

logger = logging.getLogger(__name__)

#: What reading something else than a message raises. Errors of the connection are none of these.
MALFORMED = (TypeError, ValueError, LookupError, AttributeError)
#: Beginning of the list that ends a question. The broker's user may touch keys of kombu's bindings, which this is named like.
WAKE_PREFIX = "_kombu.binding.wake."
#: A worker that dies between the message and its question leaves the list behind for so long.
WAKE_SECONDS = 60


class QueueOrder(Protocol):
    """In what order one worker asks its queues, and which it leaves out."""

    def update(self, queues: Iterable[str]) -> None:
        """These are the worker's queues now."""
        ...

    def eligible(self, in_flight: Mapping[str, int]) -> list[str]:
        """The queues that may be asked while the worker has `in_flight` messages of each, in the order of asking."""
        ...

    def rotate(self, served: str) -> str:
        """A message came from `served`."""
        ...


#: The order of the worker of this node name, made anew for each channel; None for a worker that asks all of its queues.
OrderOf = Callable[[str], Callable[[], QueueOrder] | None]
#: Raises SignatureError for a message that was not signed.
Check = Callable[[Any], None]


def install(order_of: OrderOf, signed: Check) -> None:
    """Have this process, if it becomes a Celery worker, read its queues through these channels, and only what is `signed`."""

    versions.require(__name__, "celery", "kombu")

    def use(sender: str, **_: Any) -> None:
        order = order_of(sender)
        transport.Transport.Channel = worker_channel(transport.Channel, order, signed)
        transport.SentinelTransport.Channel = worker_channel(transport.SentinelChannel, order, signed)

    signals.celeryd_init.connect(use, weak=False, dispatch_uid=__name__)
    # Celery drops these by itself.
    signals.task_unknown.connect(_unknown, weak=False)
    signals.task_rejected.connect(_rejected, weak=False)


def _unknown(name: str = "", **_: Any) -> None:
    logger.warning("a message for task %r, which there is not, was dropped", name)
    counters.count(metric_names.POISON, where="unknown_task")


def _rejected(**_: Any) -> None:
    counters.count(metric_names.POISON, where="message")


class MalformedError(Exception):
    """A message that no worker can execute; the text says what is wrong, and nothing of what it holds."""


def check(message: Any) -> None:
    """Raise MalformedError for what Celery's worker would not survive, or never finish.

    Limits that the pool cannot keep are read when a child is free, out of reach of a guard. What Celery itself tells apart (an
    unknown task, a type of content that is not accepted, a time that is none) is left to it.
    """
    headers = message.headers
    if not isinstance(headers, dict):
        raise MalformedError(f"headers are {type(headers).__name__}")
    known = cast("dict[str, object]", headers)
    for name in ("task", "id"):
        if name in known and not isinstance(known[name], str):
            raise MalformedError(f"header {name} is {type(known[name]).__name__}")
    _check_limits(known.get("timelimit"))
    _check_delivery(message)
    if "task" in known:
        _check_call(message)


def _check_limits(limits: object) -> None:
    if limits is None:
        return
    both = cast("list[object]", limits if isinstance(limits, list | tuple) else [])
    if len(both) != 2 or not all(limit is None or (type(limit) in (int, float)) for limit in both):
        raise MalformedError("timelimit is not two numbers")


def _check_delivery(message: Any) -> None:
    """What the consumer reads of every message beside its headers."""
    delivery = message.delivery_info
    if not isinstance(delivery, dict) or not isinstance(cast("dict[str, object]", delivery).get("routing_key"), str):
        raise MalformedError("no routing_key")
    if not isinstance(message.body, str | bytes):
        raise MalformedError(f"the body is {type(message.body).__name__}")


def _check_call(message: Any) -> None:
    """That the body is a call. Celery decodes it, too, as it takes the message; it is decoded once."""
    try:
        call: object = message.payload
    except ContentDisallowed:
        return
    except Exception as error:
        raise MalformedError(f"the body cannot be decoded ({type(error).__name__})") from None
    parts = cast("list[object]", call if isinstance(call, list | tuple) else [])
    if len(parts) != 3 or not isinstance(parts[0], list | tuple) or not isinstance(parts[1], dict):
        raise MalformedError("the body is no call of a task")


def worker_channel(base: Any, order: Callable[[], QueueOrder] | None, signed: Check) -> Any:
    """The channel class `base` of kombu's Redis transport in which what is not `signed`, or is malformed, is dropped; fair where
    there is an `order`.
    """

    class StrictChannel(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._raised: BaseException | None = None
            base.__init__(self, *args, **kwargs)

        def _brpop_read(self, **options: Any) -> Any:
            try:
                return base._brpop_read(self, **options)
            except MALFORMED as error:
                if error is self._raised:
                    raise
                # It has left its list, and nobody else will see it.
                return _dropped(error)

        def basic_consume(self, queue: str, *args: Any, callback: Callable[[Any], Any], **kwargs: Any) -> Any:
            def received(message: Any) -> Any:
                try:
                    check(message)
                except MalformedError as error:
                    if not message.acknowledged:
                        message.reject()
                    return _dropped(error)
                try:
                    return callback(message)
                except Exception as error:
                    # Of the worker, not of the message, which stays in the broker for one that works.
                    self._raised = error
                    raise

            result = base.basic_consume(self, queue, *args, callback=received, **kwargs)
            # Remote control and events come by PUBLISH, and name no task: `runtime.broker.remote_control`.
            if queue not in self._fanout_queues:
                callbacks = self.connection._callbacks
                callbacks[queue] = partial(_if_signed, signed, callbacks[queue])
            return result

    return StrictChannel if order is None else _fair(StrictChannel, order)


def _dropped(error: Exception) -> bool:
    # Not the message itself: it may be anyone's query.
    logger.error("what is no message was dropped from a queue: %s: %s", type(error).__name__, error, exc_info=True)
    counters.count(metric_names.POISON, where="queue")
    return True


def _if_signed(signed: Check, deliver: Callable[[object], Any], message: object) -> Any:
    """Deliver what the broker's JSON was, or refuse it: it has left its list, and nobody else will see it."""
    try:
        signed(message)
    except SignatureError as error:
        headers = cast("dict[str, Any]", message).get("headers") if isinstance(message, dict) else None
        known = cast("dict[str, object]", headers if isinstance(headers, dict) else {})
        # As much as is needed to find the query: whoever wrote it chose these texts.
        named = [repr(known.get(name))[:80] for name in ("task", "id")]
        logger.error("a message was refused unread (task %s, id %s): it is %s", *named, error)  # noqa: TRY400
        counters.count(metric_names.POISON, where="signature")
        return True
    return deliver(message)


def in_flight() -> Counter[str]:
    """How many messages of each queue this worker has taken and not finished. Only a worker's parent process knows."""
    # After its broker was away a worker has forgotten what is reserved, and still executes what is active.
    return Counter(
        str(request.delivery_info["routing_key"]) for request in {*state.reserved_requests, *state.active_requests}
    )


class Cycle:
    """kombu's cycle of queues, by a `QueueOrder`; `wake` is asked too while a queue is left out."""

    def __init__(self, order: QueueOrder, wake: str) -> None:
        self._order = order
        self._wake = wake
        self._asked: frozenset[str] = frozenset()

    def update(self, it: Iterable[str]) -> None:
        """The queues of the channel have changed."""
        self._order.update(it)

    def consume(self, n: int) -> list[str]:
        """The keys of the next question: at most `n` queues, none where all are at their bound."""
        queues = self._order.eligible(in_flight())
        self._asked = frozenset(queues)
        return [*queues, self._wake] if queues and len(queues) < n else queues

    def rotate(self, last_used: str) -> str:
        """A message came from `last_used`."""
        return self._order.rotate(last_used)

    def misses(self) -> bool:
        """Whether the last question leaves out a queue that may be asked by now."""
        return not self._asked.issuperset(self._order.eligible(in_flight()))


def _nothing(message: object) -> None:
    """What a message to the worker's own list says: it has ended the question already."""


def _fair(base: Any, order: Callable[[], QueueOrder]) -> Any:
    class QoS(base.QoS):
        def ack(self, delivery_tag: str) -> None:
            base.QoS.ack(self, delivery_tag)
            self.channel.wake()

        def reject(self, delivery_tag: str, requeue: bool = False) -> None:
            base.QoS.reject(self, delivery_tag, requeue)
            self.channel.wake()

    class FairChannel(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._wake = f"{WAKE_PREFIX}{uuid.uuid4()}"
            self._woken = False
            base.__init__(self, *args, **kwargs)
            self.QoS = QoS
            self._queue_cycle = Cycle(order(), self._wake)
            self.connection._callbacks[self._wake] = _nothing

        def _brpop_start(self, timeout: float | None = None) -> None:
            self._woken = False
            base._brpop_start(self, timeout)

        def wake(self) -> None:
            """End the question that the server holds, where it misses a queue."""
            if not self._in_poll or self._woken or not self._queue_cycle.misses():
                return
            self._woken = True
            try:
                with self.conn_or_acquire() as client, client.pipeline() as pipe:
                    pipe.lpush(self._wake, "{}")
                    pipe.expire(self._wake, WAKE_SECONDS)
                    pipe.execute()
            except self.connection_errors:
                # The question ends by itself within a second, or has ended with the connection.
                logger.warning("a question to the broker was not ended early", exc_info=True)

    return FairChannel
