"""What is counted of tasks, and what a worker's log says of them: each with its tenant."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, cast

from celery import signals

from runtime.environment import counters
from runtime.queries.executions import Outcome
from runtime.tenants.identity import TENANT_HEADER, task_tenant_id, tenant_of_queue
from runtime.tenants.router import CHART_TASKS, SQL_LAB_TASK
from topology import metric_names

#: Upper bounds of the buckets of `TASK_SECONDS`; the last one has none.
BUCKETS = ("0.1", "0.5", "1", "5", "10", "30", "60", "+Inf")
#: When each task of this process began, by its id.
_began: dict[str, float] = {}


def install(role: str) -> None:
    """Have this process count the tasks that it sends and executes, and put the tenant on every line of its log."""
    _label_logs()

    def sent(sender: str, headers: Mapping[str, Any], routing_key: str, **_: Any) -> None:
        # A worker sends queries only again: they were counted when the web tier did.
        if role == "worker" and (sender == SQL_LAB_TASK or sender in CHART_TASKS):
            return
        labels = _labels(sender, routing_key, str(headers.get(TENANT_HEADER) or ""))
        counters.count_all([(metric_names.TASKS_SUBMITTED, 1, labels)])

    signals.after_task_publish.connect(sent, weak=False, dispatch_uid=f"{__name__}.sent")
    signals.task_prerun.connect(_begin, weak=False, dispatch_uid=f"{__name__}.begin")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid=f"{__name__}.end")


def outcome(state: str, result: object) -> Outcome | None:
    """How a task ended, from Celery's state and what it returned or raised; None for one that is sent again or was put back.

    SQL Lab's task never raises: Celery takes a failed query for a success, and only what it returns says otherwise.
    """
    if state == "SUCCESS":
        status = cast("dict[str, Any]", result).get("status") if isinstance(result, dict) else None
        return status if status in ("failed", "stopped", "timed_out") else "success"
    if state == "FAILURE":
        return "timed_out" if type(result).__name__ in ("SoftTimeLimitExceeded", "TimeLimitExceeded") else "failed"
    return None


def increments(
    name: str, queue: str, tenant: str, ended: Outcome, seconds: float
) -> list[tuple[str, float, dict[str, str]]]:
    """What one executed task adds to the counters."""
    labels = _labels(name, queue, tenant)
    buckets = [bound for bound in BUCKETS if seconds <= float(bound)]
    return [
        (metric_names.TASKS_COMPLETED, 1, {**labels, "status": ended}),
        *((f"{metric_names.TASK_SECONDS}_bucket", 1, {**labels, "le": bound}) for bound in buckets),
        (f"{metric_names.TASK_SECONDS}_sum", float(seconds), labels),
        (f"{metric_names.TASK_SECONDS}_count", 1, labels),
    ]


def _labels(name: str, queue: str, tenant: str) -> dict[str, str]:
    return {"task_name": name, "queue": queue, "tenant": tenant or tenant_of_queue(queue)}


def _begin(task_id: str, **_: Any) -> None:
    _began[task_id] = time.monotonic()


def _end(task_id: str, task: Any, retval: object, state: str | None = None, **_: Any) -> None:
    began = _began.pop(task_id, None)
    ended = outcome(state or "", retval)
    if began is None or ended is None:
        return
    delivery: dict[str, Any] = task.request.delivery_info or {}
    queue = str(delivery.get("routing_key") or "")
    counters.count_all(increments(task.name, queue, task_tenant_id(), ended, time.monotonic() - began))


def _label_logs() -> None:
    """Give every record `tenant`: "tenant=<id> " for a line of a tenant's task, else nothing."""
    make = logging.getLogRecordFactory()

    def labelled(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        tenant = task_tenant_id()
        record.tenant = f"tenant={tenant} " if tenant else ""
        return record

    logging.setLogRecordFactory(labelled)
