"""No message empties a table of history: a task that prunes keeps what the stack keeps, whatever its arguments say.

`kept_days` is what Celery's setting `task_annotations` puts around the tasks of `PRUNE_TASKS`, as `runtime.superset.execution` is
around those of queries.

Replaces the call of tasks by an annotation, and leans on `task.request` (read and tested with Superset 6.1.0 and Celery 5.6.3; no
upstream issue known).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore as IgnoredError

from runtime.environment import counters, process_topology, versions
from topology import metric_names
from topology.model import Topology

if TYPE_CHECKING:
    from celery import Task

logger = logging.getLogger(__name__)

#: Superset's tasks that delete rows by their age, and this project's.
PRUNE_TASKS = ("prune_query", "prune_logs", "prune_tasks", "superset_async.prune_executions")
#: The fewest days that are kept of what the stack's schedule does not prune.
LEAST_DAYS = 1
#: The argument that says how many days are kept.
ARGUMENT = "retention_period_days"

Call = Callable[..., Any]


def floor(topology: Topology, task: str) -> int:
    """The fewest days that `task` may be asked to keep: what the stack's own schedule says."""
    scheduled = [job.kwargs.get(ARGUMENT, LEAST_DAYS) for job in topology.beat.jobs if job.task == task]
    return max(LEAST_DAYS, min(scheduled, default=LEAST_DAYS))


def asked(args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """How many days a call asks to keep; None where it does not say."""
    return args[0] if args else kwargs.get(ARGUMENT)


def kept_days(call: Call) -> Call:
    """Celery's `@__call__` annotation: `call` is the task's own, and this is what a worker calls instead."""
    versions.require(__name__, "celery")

    @functools.wraps(call)
    def prune(task: Task[Any, Any], *args: Any, **kwargs: Any) -> Any:
        days, least = asked(args, kwargs), floor(process_topology.started(), task.name)
        if isinstance(days, int) and not isinstance(days, bool) and days >= least:
            return call(task, *args, **kwargs)
        logger.error("%s was asked to keep %r days, and keeps %d or more: nothing was deleted", task.name, days, least)
        counters.count(metric_names.POISON, where="retention")
        raise IgnoredError()

    return prune
