"""kombu's Redis channel in a worker with several queues: it asks those that `fairness` lets it ask.

As shipped (kombu 5.6) a channel asks all of its queues in turns, whatever the worker has taken of each. A question (BRPOP) stays
with the server for up to a second, with the queues of its beginning: one that was left out because it was at its bound, and is
below it a moment later, would be heard only at the next question, so that a tenant of short queries could run no more than its
bound each second. Here the end of a task ends such a question at once, by a message to a list of the worker's own.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from runtime.model import Share, Topology
from runtime.tenancy.fairness import Turns, shares_of

logger = logging.getLogger(__name__)

#: Beginning of the list that ends a question. The broker's user may touch keys of kombu's bindings, which this is named like.
WAKE_PREFIX = "_kombu.binding.wake."
#: A worker that dies between the message and its question leaves the list behind for so long.
WAKE_SECONDS = 60


def install(topology: Topology) -> None:
    """Have this process, if it becomes a Celery worker of a pool with shares, keep to them."""

    def use(sender: str, **_: Any) -> None:
        pool = next((pool for pool in topology.pools if pool.name == sender.partition("@")[0]), None)
        if pool is None or not pool.shares:
            return
        shares = shares_of(pool, pool.max_workers if topology.platform == "local" else 1)
        transport = import_module("kombu.transport.redis")
        transport.Transport.Channel = fair(transport.Channel, shares)
        transport.SentinelTransport.Channel = fair(transport.SentinelChannel, shares)

    import_module("celery.signals").celeryd_init.connect(use, weak=False, dispatch_uid=__name__)


def in_flight() -> Counter[str]:
    """How many messages of each queue this worker has taken and not finished. Only a worker's parent process knows."""
    state = import_module("celery.worker.state")
    # After its broker was away a worker has forgotten what is reserved, and still executes what is active.
    return Counter(
        str(request.delivery_info["routing_key"]) for request in {*state.reserved_requests, *state.active_requests}
    )


class Cycle:
    """kombu's cycle of queues, by `Turns`; `wake` is asked too while a queue is left out."""

    def __init__(self, shares: Sequence[Share], wake: str) -> None:
        self._turns = Turns(shares)
        self._wake = wake
        self._asked: frozenset[str] = frozenset()

    def update(self, it: Iterable[str]) -> None:
        """The queues of the channel have changed."""
        self._turns.update(it)

    def consume(self, n: int) -> list[str]:
        """The keys of the next question: at most `n` queues, none where all are at their bound."""
        queues = self._turns.eligible(in_flight())
        self._asked = frozenset(queues)
        return [*queues, self._wake] if queues and len(queues) < n else queues

    def rotate(self, last_used: str) -> str:
        """A message came from `last_used`."""
        return self._turns.rotate(last_used)

    def misses(self) -> bool:
        """Whether the last question leaves out a queue that may be asked by now."""
        return not self._asked.issuperset(self._turns.eligible(in_flight()))


def _nothing(message: object) -> None:
    """What a message to the worker's own list says: it has ended the question already."""


def fair(base: Any, shares: Sequence[Share]) -> Any:
    """The channel class `base` of kombu's Redis transport, or of its Sentinel one, that keeps to `shares`."""

    class QoS(base.QoS):  # pyright: ignore[reportUntypedBaseClass]
        def ack(self, delivery_tag: str) -> None:
            base.QoS.ack(self, delivery_tag)
            self.channel.wake()

        def reject(self, delivery_tag: str, requeue: bool = False) -> None:
            base.QoS.reject(self, delivery_tag, requeue)
            self.channel.wake()

    class Channel(base):  # pyright: ignore[reportUntypedBaseClass]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._wake = f"{WAKE_PREFIX}{uuid.uuid4()}"
            self._woken = False
            base.__init__(self, *args, **kwargs)
            self.QoS = QoS
            self._queue_cycle = Cycle(shares, self._wake)
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

    return Channel
