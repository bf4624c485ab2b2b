"""Which queue a task goes to. Celery asks where the task is sent, so this runs in the web process, in a user's request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

from runtime.model import Topology

logger = logging.getLogger(__name__)

#: Seconds for which the name of a user is remembered by id.
USERNAME_SECONDS = 60
#: Superset's tasks whose first argument says which user's chart they compute.
CHART_TASKS = frozenset({"load_chart_data_into_cache", "load_explore_json_into_cache"})
SQL_LAB_TASK = "sql_lab.get_sql_results"


def superset_username(user_id: int) -> str | None:
    """The name of Superset's user `user_id`, at most a minute old; None for an unknown one. Needs Superset's application."""
    return _username(user_id, int(time.monotonic() // USERNAME_SECONDS))


@lru_cache(maxsize=4096)
def _username(user_id: int, minute: int) -> str | None:
    security_manager = import_module("superset.extensions").security_manager
    user = security_manager.get_user_by_id(user_id)
    return cast("str | None", user.username) if user else None


class Router:
    """Celery's route of every task: a tenant's queries to the tenant's queue, all else to the default queue."""

    def __init__(self, topology: Topology, username_of: Callable[[int], str | None] = superset_username) -> None:
        self._default = topology.celery.default_queue
        self._queues = {user: tenant.queue for tenant in topology.tenants for user in tenant.users}
        self._username_of = username_of

    def __call__(
        self,
        name: str,
        args: Sequence[object] | None,
        kwargs: Mapping[str, object] | None,
        *_: object,
        **__: object,
    ) -> dict[str, str]:
        """The route of a task, as Celery asks for it. It never fails: a submission is worth more than its place."""
        queue = self._default
        if self._queues:
            try:
                username = self._user(name, args or (), kwargs or {})
                queue = self._queues.get(username, self._default) if username else self._default
            except Exception:
                logger.exception("no tenant found for a task of %s: it goes to queue %r", name, self._default)
        return {"queue": queue}

    def _user(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> str | None:
        if name == SQL_LAB_TASK:
            return cast("str | None", kwargs.get("username"))
        if name not in CHART_TASKS:
            return None
        metadata = cast("Mapping[str, Any]", args[0] if args else kwargs["job_metadata"])
        guest = cast("Mapping[str, Any]", metadata.get("guest_token") or {})
        if guest:
            return cast("str | None", guest.get("user", {}).get("username"))
        user_id = cast("int | None", metadata.get("user_id"))
        return self._username_of(user_id) if user_id is not None else None

    def __repr__(self) -> str:
        return f"Router(default={self._default!r}, tenants={len(set(self._queues.values()))})"
