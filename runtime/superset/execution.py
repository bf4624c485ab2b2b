"""Where Superset's tasks are executed: the annotation that puts a `Delivery` around each.

`around` is what Celery's setting `task_annotations` puts around Superset's own tasks. In a process that calls them directly, as
the web process does for synchronous queries, it does nothing.

Replaces the call of Superset's tasks by an annotation, and leans on `task.request` (read and tested with Superset 6.1.0 and
Celery 5.6.3; no upstream issue known).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.exceptions import Ignore

from runtime.environment import counters, json_logs, versions
from runtime.queries import query_tasks
from runtime.queries.deliveries import Delivery
from topology import metric_names

logger = logging.getLogger(__name__)

Call = Callable[..., Any]


def around(call: Call) -> Call:
    """Celery's `@__call__` annotation: `call` is the task's own, and this is what a worker calls instead."""
    versions.require(__name__, "apache-superset", "celery")

    @functools.wraps(call)
    def execute(task: Task[Any, Any], *args: Any, **kwargs: Any) -> Any:
        request = task.request
        if request.called_directly or request.is_eager:
            return call(task, *args, **kwargs)
        asked = query_tasks.of(task.name, args, kwargs)
        if asked is None:
            logger.error("task %s of %s asks for no query: dropped", request.id, task.name)
            counters.count(metric_names.POISON, where="task")
            raise Ignore()
        json_logs.about(query_id=asked.subject, user=asked.username, statement=asked.sql)
        return Delivery(task, asked, args, kwargs).handle(lambda: call(task, *args, **kwargs))

    return execute
