"""Which tasks each worker has taken from the broker, so that a message which nobody has any more can be told from one in use.

After its broker was away a worker has forgotten what it had prefetched, while the broker still keeps those messages as
delivered, until the visibility timeout an hour later. What Celery's worker really holds is known in its parent process only,
which publishes it here.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from runtime.broker import fork_safety
from runtime.environment import coordination, versions
from runtime.environment.redis_clients import text

logger = logging.getLogger(__name__)
versions.require(__name__, "celery")

PUBLISH_SECONDS = 5.0
TTL_SECONDS = 20.0
#: Sorted set of the workers that have published lately: node name by time.
WORKERS = "workers"


@dataclass(frozen=True)
class Service:
    """Which queues a worker listens to, and how many tasks it executes at once."""

    queues: Sequence[str]
    slots: int


@dataclass(frozen=True)
class Holding:
    """What one worker holds: ids of tasks, prefetched or executing, as of `at` (seconds since the epoch); and what it serves."""

    worker: str
    held: frozenset[str]
    at: float
    service: Service


def publish(worker: str, held: frozenset[str], now: float, service: Service = Service((), 0)) -> None:
    """Say what `worker` holds and serves. Raises what redis-py raises where Redis does not answer."""
    said = {"held": sorted(held), "at": now, "queues": list(service.queues), "slots": service.slots}
    pipe = coordination.client().pipeline(transaction=True)
    pipe.set(_key(worker), json.dumps(said), px=int(TTL_SECONDS * 1000))
    pipe.zadd(coordination.key(WORKERS), {worker: now})
    pipe.zremrangebyscore(coordination.key(WORKERS), "-inf", now - 10 * TTL_SECONDS)
    pipe.execute()


def withdraw(worker: str) -> None:
    """Say that `worker` is stopping in order: it holds nothing any more."""
    pipe = coordination.client().pipeline(transaction=True)
    pipe.delete(_key(worker))
    pipe.zrem(coordination.key(WORKERS), worker)
    pipe.execute()


def holdings() -> list[Holding]:
    """What every worker that lives holds. Raises what redis-py raises where Redis does not answer."""
    return read(coordination.client(), coordination.key(""))


def read(client: Redis[bytes], prefix: str) -> list[Holding]:
    """The same in the coordination database of `client`, whose keys begin with `prefix`."""
    workers = [text(worker) for worker in client.zrange(f"{prefix}{WORKERS}", 0, -1)]
    values = cast("list[Any]", client.mget([f"{prefix}worker:{worker}" for worker in workers])) if workers else []
    found: list[Holding] = []
    for worker, value in zip(workers, values, strict=True):
        if value:
            said = json.loads(value)
            # Workers of before an update say nothing of what they serve.
            service = Service(tuple(said.get("queues", ())), int(said.get("slots", 0)))
            found.append(Holding(worker, frozenset(said["held"]), said["at"], service))
    return found


def held() -> frozenset[str]:
    """The ids of all tasks that any worker holds."""
    return frozenset(task for holding in holdings() for task in holding.held)


def held_here() -> frozenset[str]:
    """The ids of the tasks that this worker's parent process has taken and not finished."""
    from celery.worker import state

    for _ in range(10):
        try:
            return frozenset(request.id for request in (*state.reserved_requests, *state.active_requests))
        except RuntimeError:
            # The event loop changed a set while it was read.
            continue
    raise RuntimeError("the worker's sets of requests never stood still")


class Publisher:
    """A thread of a worker's parent process that publishes what it holds and serves, as long as the process lives."""

    def __init__(self, worker: str, service: Callable[[], Service]) -> None:
        self._worker = worker
        self._service = service
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdings", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def end(self) -> None:
        """Publish no more, and withdraw what was published if Redis can be asked to."""
        self._ended.set()
        if os.getpid() == self._pid:
            self._thread.join(timeout=1)
            try:
                withdraw(self._worker)
            except Exception:
                logger.warning("what worker %s held is left to expire", self._worker, exc_info=True)

    def _run(self) -> None:
        while True:
            with fork_safety.undisturbed():
                try:
                    publish(self._worker, held_here(), time.time(), self._service())
                except Exception as error:
                    logger.warning("what worker %s holds was not published: %s", self._worker, error)
            if self._ended.wait(PUBLISH_SECONDS):
                return


def _key(worker: str) -> str:
    return coordination.key("worker", worker)
