"""Which queue a task goes to. Celery asks where the task is sent, so this runs in the web process, in a user's request."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from runtime.broker.queues import declared
from runtime.environment import process_topology
from runtime.tenants.directory import Directory
from runtime.tenants.identity import TENANT_HEADER
from runtime.tenants.recognition import Person, Recognition
from topology.commands import TOPOLOGY_ENV
from topology.model import Topology
from topology.settings.resilience import Urgent

logger = logging.getLogger(__name__)

Route = Callable[..., Mapping[str, Any]]

#: Superset's tasks whose first argument says which user's chart they compute.
#: The task of Superset's charts, and with it that of those of its legacy chart types.
CHART_DATA_TASK = "load_chart_data_into_cache"
CHART_TASKS = frozenset({CHART_DATA_TASK, "load_explore_json_into_cache"})
SQL_LAB_TASK = "sql_lab.get_sql_results"
#: A request with this header set to 1 asks that its queries pass the others.
URGENT_HEADER = "X-Superset-Async-Urgent"


def marked_urgent() -> bool:
    """Whether the request that this submission belongs to asks to pass the others; False outside of a request."""
    from flask import has_request_context, request

    return bool(has_request_context()) and request.headers.get(URGENT_HEADER) == "1"


class Router:
    """Celery's route of every task: urgent queries first, a tenant's to its queue, all else to the default queue.

    A tenant's message carries its name, whatever queue it goes to, and its time limits, which Celery reads from there.
    """

    def __init__(self, topology: Topology, directory: Directory, marked: Callable[[], bool] = marked_urgent) -> None:
        self._default = topology.celery.default_queue
        self._tenants = {tenant.id: tenant for tenant in topology.tenants}
        self._of_queues = {tenant.queue: tenant.id for tenant in topology.tenants}
        self._recognition = Recognition(topology.tenants)
        self._urgent = topology.urgent or Urgent(queue=self._default, roles=(), marker_roles=())
        self._directory = directory
        self._marked = marked

    def __call__(
        self,
        name: str,
        args: Sequence[object] | None,
        kwargs: Mapping[str, object] | None,
        options: Mapping[str, object] | None = None,
        **_: object,
    ) -> dict[str, Any]:
        """The route of a task, as Celery asks for it. It never fails: a submission is worth more than its place.

        A task that is sent again goes to the queue that `options` has, and its own limits with it.
        """
        if again := (options or {}).get("queue"):
            tenant = self._of_queues.get(str(getattr(again, "name", again)))
            return {"headers": {TENANT_HEADER: tenant}} if tenant else {}
        if name == SQL_LAB_TASK or name in CHART_TASKS:
            try:
                return self._route(name, args or (), kwargs or {})
            except Exception:
                logger.exception("no tenant found for a task of %s: it goes to queue %r", name, self._default)
        return {"queue": self._default}

    def _route(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, Any]:
        passing = set(self._urgent.roles)
        if self._urgent.marker_roles and self._marked():
            passing |= set(self._urgent.marker_roles)
        if not self._tenants and not passing:
            return {"queue": self._default}
        if name == SQL_LAB_TASK:
            username = cast("str | None", kwargs.get("username"))
            person = self._directory.named(username) if username else self._directory.anonymous()
        else:
            person = self._of_chart(cast("Mapping[str, Any]", args[0] if args else kwargs["job_metadata"]))
        tenant = self._tenants.get(self._recognition.of_query(person, lambda: self._database(name, args, kwargs)))
        queue = tenant.queue if tenant else self._default
        if person.roles & passing:
            queue = self._urgent.queue
        if tenant is None:
            return {"queue": queue}
        limits = [tenant.time_limit_seconds, tenant.soft_time_limit_seconds]
        return {"queue": queue, "headers": {TENANT_HEADER: tenant.id, "timelimit": limits}}

    def _of_chart(self, metadata: Mapping[str, Any]) -> Person:
        if guest := metadata.get("guest_token"):
            return self._directory.guest(guest)
        user_id = cast("int | None", metadata.get("user_id"))
        return self._directory.user(user_id) if user_id is not None else self._directory.anonymous()

    def _database(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> str | None:
        if name == SQL_LAB_TASK:
            return self._directory.database_of_query(cast(int, args[0] if args else kwargs["query_id"]))
        return self._directory.database_of_chart(
            cast("Mapping[str, Any]", args[1] if len(args) > 1 else kwargs["form_data"])
        )

    def __repr__(self) -> str:
        return f"Router(default={self._default!r}, tenants={len(self._tenants)})"


class LiveRouter:
    """Celery's route of every task, by the tenants that there are now: `router` is made anew for each new topology.

    A process whose environment names no topology keeps the one that it was configured with.
    """

    def __init__(
        self,
        first: Topology,
        router: Callable[[Topology], Route],
        current: Callable[[], Topology] | None = None,
    ) -> None:
        self._make = router
        self._current = current or (process_topology.current if os.environ.get(TOPOLOGY_ENV) else lambda: first)
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
