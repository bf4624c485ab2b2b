"""Queues come and go with tenants: what waits in one that is gone moves to the default queue, so that no query is lost.

Which queues there are is written beside them, in the coordination database, by the init job: it alone is sure to have read
the newest topology. A queue that is retired is emptied for as long as it is retired, since web processes may send to it for
a minute more, and a worker that stops gives back what it did not finish.

Leans on kombu's lists of messages and on `app.amqp.queues` of Celery (read and tested with kombu 5.6.2 and Celery 5.6.3; no
upstream issue known).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any, cast, overload

from redis import Redis, WatchError

from runtime.broker.messages import PRIORITY_SUFFIXES
from runtime.environment import process_topology, redis_databases, secrets
from runtime.environment.redis_clients import client, text
from topology.model import Topology

#: Sets of queue names: those of the newest topology, and those that were declared once and are no more.
DECLARED, RETIRED = "queues:declared", "queues:retired"


class Queues:
    """The queues of one broker: `coordination` and `broker` are clients of redis-py. Methods raise RedisError."""

    def __init__(
        self, coordination: Redis[bytes], coordination_prefix: str, broker: Redis[bytes], broker_prefix: str
    ) -> None:
        self._coordination = coordination
        self._declared = f"{coordination_prefix}{DECLARED}"
        self._retired = f"{coordination_prefix}{RETIRED}"
        self._broker = broker
        self._prefix = broker_prefix

    def declare(self, queues: Sequence[str]) -> Set[str]:
        """Make `queues` those that there are; the names that are retired now."""
        before = {text(name) for name in self._coordination.smembers(self._declared)}
        gone = before - set(queues)
        with self._coordination.pipeline(transaction=True) as change:
            change.delete(self._declared)
            change.sadd(self._declared, *queues)
            change.srem(self._retired, *queues)
            if gone:
                change.sadd(self._retired, *gone)
            change.execute()
        return self.retired()

    def retired(self) -> Set[str]:
        """Queues that there were once."""
        return {text(name) for name in self._coordination.smembers(self._retired)}

    def empty_retired(self, target: str) -> Mapping[str, int]:
        """Move all that waits in retired queues to `target`; how many messages came from each."""
        return {queue: count for queue in sorted(self.retired()) if (count := self._empty(queue, target))}

    def _empty(self, queue: str, target: str) -> int:
        moved = 0
        for suffix in PRIORITY_SUFFIXES:
            source, into = f"{self._prefix}{queue}{suffix}", f"{self._prefix}{target}{suffix}"
            with self._broker.pipeline(transaction=True) as change:
                while True:
                    change.watch(source)
                    # The oldest: messages come in on the left and go on the right.
                    message = cast("bytes | None", change.lindex(source, -1))
                    if message is None:
                        break
                    change.multi()
                    change.rpop(source)
                    change.lpush(into, readdressed(message, target))
                    try:
                        change.execute()
                    except WatchError:
                        # Somebody sent or took one meanwhile.
                        continue
                    moved += 1
        return moved


def readdressed(message: bytes, queue: str) -> bytes:
    """A message of Celery's with `queue` as its address, to which it goes back when it is not acknowledged; else as it is."""
    try:
        content = cast("dict[str, Any]", json.loads(message))
        content["properties"]["delivery_info"].update(exchange=queue, routing_key=queue)
    except (ValueError, KeyError, TypeError, AttributeError):
        return message
    return json.dumps(content).encode()


@lru_cache(maxsize=1)
def own_broker() -> tuple[Redis[bytes], str]:
    """A client of this process's broker, as the user that it is there, and the prefix of its keys."""
    topology = process_topology.started()
    database = redis_databases.database(topology, secrets.read(topology, os.environ), "broker")
    return client(database), database.prefix


def depth(queue: str) -> int:
    """How many messages wait in `queue` of this process's broker. Raises RedisError where it does not answer."""
    broker, prefix = own_broker()
    pipeline = broker.pipeline(transaction=False)
    for suffix in PRIORITY_SUFFIXES:
        pipeline.llen(f"{prefix}{queue}{suffix}")
    return sum(pipeline.execute())


class Everything(Sequence[str]):
    """Names of all queues in which a message may wait: those of the topology as it is now, and the retired ones."""

    def __init__(self, queues: Queues, env: Mapping[str, str] = os.environ) -> None:
        self._queues = queues
        self._env = env

    def _names(self) -> tuple[str, ...]:
        declared = process_topology.current(self._env).celery.queues
        return (*declared, *sorted(self._queues.retired() - set(declared)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __len__(self) -> int:
        return len(self._names())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._names()[index]


def of(topology: Topology, env: Mapping[str, str] = os.environ) -> Queues:
    """The queues of `topology`'s broker, with the secrets in `env`."""
    known = secrets.read(topology, env)
    coordination, broker = (redis_databases.database(topology, known, purpose) for purpose in ("coordination", "broker"))
    return Queues(client(coordination), coordination.prefix, client(broker), broker.prefix)


def declared(name: str) -> str:
    """`name`, declared to this process's Celery where it was not at its start: Celery refuses queues that it does not know."""
    from celery import current_app

    queues = current_app.amqp.queues
    if name not in queues:
        # It takes a name too.
        queues.add(name, exchange=name, routing_key=name)  # pyright: ignore[reportArgumentType]
    return name
