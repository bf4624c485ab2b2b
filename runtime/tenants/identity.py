"""Whose request or task this process is at work on, for what must keep tenants apart: caches, limits, logs."""

from __future__ import annotations

import sys
from typing import Any

from runtime.environment import process_topology
from runtime.tenants.directory import Directory
from runtime.tenants.recognition import NOBODY, Person, Recognition
from topology.model import Tenant, Topology

#: Header of a task's message: the tenant that the router found.
TENANT_HEADER = "superset_async_tenant"


#: Who people are: given once, when the process is configured.
_directory: list[Directory] = []


def look_up_in(directory: Directory) -> None:
    """Have this process ask `directory` who a user is."""
    _directory[:] = [directory]


def current_tenant_id() -> str:
    """The tenant of the current user or guest, empty for none; the same in the web process and in the user's task.

    By claim, user name and roles only, and never by database: what a user is shown lies under one name whatever it is made of.
    The user is the one of the request, or the one whom a task works for. It raises what a look-up in the metadata database
    raises, once a minute for a user: an answer that is wrong would show one tenant's results to another.
    """
    tenant = current_tenant()
    return tenant.id if tenant else NOBODY


def current_tenant() -> Tenant | None:
    """The same with its terms, both of one topology: tenants come and go while a request is at work. None for none."""
    _, recognition, _, by_id = _known()
    if recognition is None:
        return None
    from flask import g, has_app_context

    user = g.get("user") if has_app_context() else None
    return by_id.get(recognition.of_person(person_of(user))) if user is not None else None


def person_of(user: Any) -> Person:
    """Who a Superset user object is: a user, an embedded guest, or somebody who is not logged in."""
    directory = _directory[0]
    if getattr(user, "is_guest_user", False):
        return directory.guest(user.guest_token)
    user_id = getattr(user, "id", None)
    return directory.anonymous() if user_id is None else directory.user(user_id)


def task_tenant_id() -> str:
    """The tenant that the router found for the task at work in this process; empty outside of a task, and for none."""
    return task_field(TENANT_HEADER)


def task_field(name: str) -> str:
    """A field of the request of the task at work in this process, empty where there is none."""
    # Every line of a log asks, also while Celery is imported.
    state: Any = sys.modules.get("celery._state")
    task = state.get_current_task() if state is not None else None
    return str(task.request.get(name) or "") if task is not None else ""


def working_tenant() -> Tenant | None:
    """The tenant of the task at work in this process, by database too, or else of the current user; None for none."""
    return _known()[3].get(task_tenant_id() or current_tenant_id())


def tenant_of_queue(queue: str) -> str:
    """The tenant whose own queue this is; empty for a queue that no tenant has alone."""
    return _of_queues().get(queue, NOBODY)


def _of_queues() -> dict[str, str]:
    return _known()[2]


_Known = tuple[Topology, Recognition | None, dict[str, str], dict[str, Tenant]]
_last: _Known | None = None


def _known() -> _Known:
    """What follows from the topology as it is now: made once for each, since tenants come and go while processes go on."""
    global _last  # noqa: PLW0603 - one a process; of two threads that make it at once, either's is right
    topology = process_topology.current()
    last = _last
    if last is None or last[0] is not topology:
        tenants = topology.tenants
        queues = {tenant.queue: tenant.id for tenant in tenants}
        by_id = {tenant.id: tenant for tenant in tenants}
        _last = last = (topology, Recognition(tenants) if tenants else None, queues, by_id)
    return last
