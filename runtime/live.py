"""The topology as its file is now: tenants and their queues come and go while web processes and workers go on.

On Kubernetes the file is a mounted ConfigMap, which the kubelet replaces within about a minute of a change. What a process
took from the topology at its start (limits, caches, addresses) changes only with a restart, which the digest in its pod's
template causes; what is asked for here (tenants, urgent queries, queues, rates) takes effect without one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from runtime.commands import TOPOLOGY_ENV
from runtime.model import Topology
from runtime.tenancy.router import Router

logger = logging.getLogger(__name__)

#: The file is looked at (one `stat`) at most this often.
LOOK_SECONDS = 5.0
Route = Callable[..., Mapping[str, Any]]


class Watched:
    """A topology that follows its file; a file that cannot be read, or is of another version, changes nothing."""

    def __init__(self, path: Path, first: Topology | None = None, every: float = LOOK_SECONDS) -> None:
        self._path = path
        self._every = every
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._next = time.monotonic() + every
        self._topology = first or Topology.model_validate_json(path.read_text(encoding="utf-8"))

    def __call__(self) -> Topology:
        """The topology; the same object for as long as the file is the same."""
        # Whoever comes while another looks goes on with what is known.
        if time.monotonic() >= self._next and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._topology

    def _look(self) -> None:
        self._next = time.monotonic() + self._every
        signature = self._signature()
        if signature == self._seen or signature is None:
            return
        self._seen = signature
        try:
            changed = Topology.model_validate_json(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.error("the changed topology in %s is not taken: %s", self._path, error)  # noqa: TRY400 - its text says it
            return
        logger.info("the topology in %s has changed: tenants %s", self._path, [tenant.id for tenant in changed.tenants])
        self._topology = changed

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            # Through the symbolic links by which a mounted ConfigMap is replaced.
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


@cache
def _watched(path: str) -> Watched:
    return Watched(Path(path))


def topology(env: Mapping[str, str] = os.environ) -> Topology:
    """The topology of this process, from the file that its environment names; KeyError where it names none."""
    return _watched(env[TOPOLOGY_ENV])()


class LiveRouter:
    """Celery's route of every task, by the tenants that there are now: `router` is made anew for each new topology.

    A process whose environment names no topology keeps the one that it was configured with.
    """

    def __init__(
        self,
        first: Topology,
        router: Callable[[Topology], Route] = Router,
        current: Callable[[], Topology] | None = None,
    ) -> None:
        self._make = router
        self._current = current or (topology if os.environ.get(TOPOLOGY_ENV) else lambda: first)
        self._of = first
        self._router = router(first)

    def __call__(
        self,
        name: str,
        args: Sequence[object] | None,
        kwargs: Mapping[str, object] | None,
        *more: object,
        **options: Any,
    ) -> Mapping[str, Any]:
        """The route of a task, to a queue that Celery knows."""
        now = self._now()
        if now is not self._of:
            # The pair is set last, so that no thread has one topology's name with another's router.
            self._router, self._of = self._make(now), now
        route = self._router(name, args, kwargs, *more, **options)
        queue = route.get("queue")
        return {**route, "queue": declared(queue)} if isinstance(queue, str) and queue in now.celery.queues else route

    def _now(self) -> Topology:
        try:
            return self._current()
        except Exception:
            # A submission is worth more than its place.
            logger.exception("the topology cannot be read: tasks are routed by the one of this process's start")
            return self._of

    def __repr__(self) -> str:
        return f"LiveRouter({self._router!r})"


def declared(name: str) -> str:
    """`name`, declared to this process's Celery where it was not at its start: Celery refuses queues that it does not know."""
    queues = import_module("celery").current_app.amqp.queues
    if name not in queues:
        queues.add(name, exchange=name, routing_key=name)
    return name
