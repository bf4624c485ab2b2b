"""What one queue may take of a worker that listens to several: no tenant holds every child, and each gets its turn.

A tenant at its bound is not asked for more: its messages wait in the broker, where another worker may take them, and occupy
nothing here. It needs late acknowledgement and a prefetch multiplier of 1, so that what a worker has taken is what it executes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from topology.model import Pool, Share, Topology
from topology.settings.tenants import Priority

_RANK: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}


class Turns:
    """In what order a worker asks its queues: pure, and the shape of kombu's own cycles of queues."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._bounds = {share.queue: share.in_flight for share in shares}
        self._ranks = {share.queue: _RANK[share.priority] for share in shares}
        self._queues: list[str] = []

    def update(self, queues: Iterable[str]) -> None:
        """These are the worker's queues now; the ones that it had keep their turn."""
        now = set(queues)
        kept = [queue for queue in self._queues if queue in now]
        self._queues = [*kept, *sorted(now - set(kept))]

    def eligible(self, in_flight: Mapping[str, int]) -> list[str]:
        """The queues that may be asked while the worker has `in_flight` messages of each, in the order of asking.

        A higher priority comes first; among equals the one that was served longest ago.
        """
        free = [queue for queue in self._queues if self._below(queue, in_flight)]
        return sorted(free, key=lambda queue: self._ranks.get(queue, _RANK["normal"]))

    def rotate(self, served: str) -> str:
        """A message came from `served`: it is the last of its equals from now on."""
        if served in self._queues:
            self._queues.remove(served)
            self._queues.append(served)
        return served

    def _below(self, queue: str, in_flight: Mapping[str, int]) -> bool:
        return queue not in self._bounds or in_flight.get(queue, 0) < self._bounds[queue]


def shares_of(pool: Pool, workers_in_one: int = 1) -> tuple[Share, ...]:
    """The shares in a worker of `pool` that has the children of `workers_in_one` workers, as an elastic one has."""
    return tuple(share.model_copy(update={"in_flight": share.in_flight * workers_in_one}) for share in pool.shares)


def order_of(topology: Topology, node: str) -> Callable[[], Turns] | None:
    """Makes the turns of the worker of this node name (`pool@host`); None where its pool has no shares to keep to."""
    pool = next((pool for pool in topology.pools if pool.name == node.partition("@")[0]), None)
    if pool is None or not pool.shares:
        return None
    shares = shares_of(pool, pool.workers_in_one)
    return lambda: Turns(shares)
