"""Which tasks each worker has taken from the broker, so that a message which nobody has any more can be told from one in use.

After its broker was away a worker has forgotten what it had prefetched, while the broker still keeps those messages as
delivered, until the visibility timeout an hour later. What Celery's worker has really reserved is known in its parent process
only, which publishes it here.

Leans on `celery.worker.state`: `reserved_requests` and `active_requests` (read and tested with Celery 5.6.3; no upstream
issue known).
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import cast

from redis import Redis

from runtime.broker import fork_safety
from runtime.environment import coordination, counters, versions
from runtime.environment.redis_clients import text
from topology import metric_names

logger = logging.getLogger(__name__)
versions.require(__name__, "celery")

PUBLISH_SECONDS = 5.0
TTL_SECONDS = 20.0
#: A worker that has not published for so long, and did not say that it stops, is forgotten.
SILENT_SECONDS = 900.0
#: Deaths are known for so long: of a day.
DEATHS_SECONDS = 24 * 3600
#: Sorted set of the workers that have published lately: node name by time.
WORKERS = "workers"
#: Begins the name of the key in which one worker publishes.
WORKER = "worker"
#: Sorted set of the workers that began where another of the name had ended without a word: node name and time by time.
DEATHS = "workers:died"


@dataclass(frozen=True)
class Service:
    """Which queues a worker listens to (none: it takes no more), and how many tasks it executes at once.

    `since`: when its process began to, in seconds since the epoch; it tells the process from a later one of the same name.
    Of its children: resident bytes of the largest, the most that any has had, and the most that any has grown since its first
    look. `oom_kills`: processes of its container that the kernel has killed for want of memory.
    """

    queues: Sequence[str]
    slots: int
    since: float = 0.0
    child_bytes: int = 0
    child_peak_bytes: int = 0
    child_grown_bytes: int = 0
    oom_kills: int = 0


@dataclass(frozen=True)
class Reserved:
    """What one worker has reserved: ids of tasks, prefetched or executing, as of `at` (seconds since the epoch)."""

    worker: str
    tasks: frozenset[str]
    at: float
    service: Service


def publish(worker: str, tasks: frozenset[str], now: float, service: Service = Service((), 0)) -> None:
    """Say what `worker` has reserved, and whom it serves. Raises what redis-py raises where Redis does not answer."""
    said = {"reserved": sorted(tasks), "at": now, **asdict(service)}
    pipe = coordination.client().pipeline(transaction=True)
    pipe.set(_key(worker), json.dumps(said), px=int(TTL_SECONDS * 1000))
    pipe.zadd(coordination.key(WORKERS), {worker: now})
    pipe.zremrangebyscore(coordination.key(WORKERS), "-inf", now - SILENT_SECONDS)
    pipe.execute()


def begin(worker: str, now: float) -> None:
    """Note that a process of `worker` begins: where another of its name did not say that it stops, that one has died.

    Raises what redis-py raises where Redis does not answer.
    """
    client = coordination.client()
    if client.zscore(coordination.key(WORKERS), worker) is None:
        return
    pipe = client.pipeline(transaction=True)
    pipe.zadd(coordination.key(DEATHS), {f"{worker} {now!r}": now})
    pipe.zremrangebyscore(coordination.key(DEATHS), "-inf", now - DEATHS_SECONDS)
    pipe.expire(coordination.key(DEATHS), DEATHS_SECONDS)
    pipe.execute()


def deaths(client: Redis[bytes], prefix: str) -> list[tuple[str, float]]:
    """Each worker that died and began anew in the last day, and when it began; `client` and `prefix` as of `workers`."""
    found = client.zrange(f"{prefix}{DEATHS}", 0, -1, withscores=True)
    return [(text(member).rpartition(" ")[0], float(at)) for member, at in found]


def silent(client: Redis[bytes], prefix: str, now: float) -> dict[str, float]:
    """Seconds since each worker spoke that has not said that it stops; `client` and `prefix` as of `workers`."""
    return {text(worker): now - float(at) for worker, at in client.zrange(f"{prefix}{WORKERS}", 0, -1, withscores=True)}


def withdraw(worker: str) -> None:
    """Say that `worker` is stopping in order: it has reserved nothing any more."""
    pipe = coordination.client().pipeline(transaction=True)
    pipe.delete(_key(worker))
    pipe.zrem(coordination.key(WORKERS), worker)
    pipe.execute()


def by_worker() -> list[Reserved]:
    """What every worker that lives has reserved. What cannot be read is removed and counted: its worker publishes again.

    Raises what redis-py raises where Redis does not answer.
    """
    client = coordination.client()
    found: list[Reserved] = []
    for worker, value in _published(client, coordination.key("")):
        reserved = _read(worker, value)
        if reserved is not None:
            found.append(reserved)
        else:
            logger.warning("what worker %s published names no tasks: removed", worker)
            client.delete(_key(worker))
            counters.count(metric_names.POISON, where="reserved")
    return found


def workers(client: Redis[bytes], prefix: str) -> list[Reserved]:
    """What every worker that lives has published, in the coordination database of `client`, whose keys begin with `prefix`.

    One that cannot be read is left out. Raises what redis-py raises where Redis does not answer.
    """
    return [reserved for worker, value in _published(client, prefix) if (reserved := _read(worker, value))]


def _published(client: Redis[bytes], prefix: str) -> Iterator[tuple[str, bytes]]:
    names = [text(worker) for worker in client.zrange(f"{prefix}{WORKERS}", 0, -1)]
    values = client.mget([f"{prefix}{WORKER}:{name}" for name in names]) if names else []
    for name, value in zip(names, values, strict=True):
        if value is not None:
            yield name, value


def _read(worker: str, value: bytes | str) -> Reserved | None:
    try:
        said = json.loads(value)
        tasks, at = said["reserved"], float(said["at"])
        service = Service(
            tuple(map(str, said.get("queues", ()))),
            int(said.get("slots", 0)),
            float(said.get("since", 0)),
            *(int(said.get(key, 0)) for key in ("child_bytes", "child_peak_bytes", "child_grown_bytes", "oom_kills")),
        )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in cast("list[object]", tasks)):
        return None
    return Reserved(worker, frozenset(cast("list[str]", tasks)), at, service)


def reserved() -> frozenset[str]:
    """The ids of all tasks that any worker has reserved. Raises what redis-py raises."""
    return frozenset(task for each in by_worker() for task in each.tasks)


def reserved_here() -> frozenset[str]:
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
    """A thread of a worker's parent process that publishes what it has reserved and whom it serves, while the process lives.

    `after` is called each time that it has published.
    """

    def __init__(self, worker: str, service: Callable[[], Service], after: Callable[[], None] = lambda: None) -> None:
        self._worker = worker
        self._service = service
        self._after = after
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reserved-tasks", daemon=True)

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
                logger.warning("what worker %s had reserved is left to expire", self._worker, exc_info=True)

    def _run(self) -> None:
        begun = False
        while True:
            with fork_safety.undisturbed():
                try:
                    if not begun:
                        begin(self._worker, time.time())
                        begun = True
                    publish(self._worker, reserved_here(), time.time(), self._service())
                    self._after()
                except Exception as error:
                    logger.warning("what worker %s has reserved was not published: %s", self._worker, error)
            if self._ended.wait(PUBLISH_SECONDS):
                return


def _key(worker: str) -> str:
    return coordination.key(WORKER, worker)
