"""A Celery task that does nothing, counted as a worker of the platform counts its own: `celery --app=bench.empty_task worker`."""

from __future__ import annotations

import os
from typing import Any, cast

from celery import Celery

from runtime.config import render
from runtime.environment import process_topology
from runtime.observability import task_metrics

NAME, QUEUE = "bench.empty", "default"
#: Of Celery's settings those that are Superset's tasks, and that nothing here needs.
OTHERS = ("beat_schedule", "imports", "result_backend", "task_routes", "task_annotations")


def application() -> Any:
    """Celery as the stack's processes have it, which counts what it sends and executes."""
    config = cast("dict[str, Any]", render(process_topology.started(), os.environ)["CELERY_CONFIG"])
    made: Any = Celery("empty")
    made.conf.update({key: value for key, value in config.items() if key not in OTHERS})
    task_metrics.install(process_topology.role(os.environ))
    return made


app = application()


@app.task(name=NAME, ignore_result=True)
def empty() -> None:
    """Nothing."""
