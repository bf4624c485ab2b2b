"""What is counted of tasks, and what a worker's log says of them: each with its tenant."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from celery import signals

from runtime.environment import counters, json_logs, process_topology
from runtime.environment.process_topology import Role
from runtime.queries import completions
from runtime.queries.executions import Outcome
from runtime.tenants.identity import TENANT_HEADER, task_tenant_id, tenant_of_queue
from runtime.tenants.router import CHART_TASKS, SQL_LAB_TASK
from topology import metric_names
from topology.histograms import TASK_BUCKETS, WAIT_BUCKETS, task_buckets

#: Header of a task's message: when it was sent, by its sender's clock, in seconds since the epoch. Celery sends no such time.
SENT_HEADER = metric_names.SENT_HEADER
#: When each task of this process began, by its id.
_began: dict[str, float] = {}

Increment = tuple[str, float, dict[str, str]]


def install(role: Role) -> None:
    """Have this process count the tasks that it sends and executes, and put the tenant on every line of its log."""

    def sent(sender: str, headers: Mapping[str, Any], routing_key: str, **_: Any) -> None:
        # A worker sends queries only again: they were counted when the web tier did.
        if role == "worker" and (sender == SQL_LAB_TASK or sender in CHART_TASKS):
            return
        labels = _labels(sender, routing_key, str(headers.get(TENANT_HEADER) or ""))
        counters.count_all([(metric_names.TASKS_SUBMITTED, 1, labels)])

    signals.before_task_publish.connect(_stamp, weak=False, dispatch_uid=f"{__name__}.stamp")
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
    name: str, queue: str, tenant: str, ended: Outcome, seconds: float, *, bounds: Sequence[float] = TASK_BUCKETS
) -> list[Increment]:
    """What one executed task adds to the counters."""
    return [
        (metric_names.TASKS_COMPLETED, 1, completions.labels(name, queue, tenant, ended)),
        *counters.observation(metric_names.TASK_SECONDS, seconds, bounds, _labels(name, queue, tenant)),
    ]


def wait_increments(queue: str, tenant: str, seconds: float, *, redelivered: bool) -> list[Increment]:
    """What the beginning of a task adds, whose message was sent `seconds` ago.

    Clocks of two machines differ by some milliseconds: what seems to have been sent later has waited for 0 seconds.
    """
    labels = {"queue": queue, "tenant": tenant or tenant_of_queue(queue)}
    again: list[Increment] = [(metric_names.REDELIVERED, 1, {"queue": queue})] if redelivered else []
    return [*counters.observation(metric_names.WAIT_SECONDS, max(0.0, seconds), WAIT_BUCKETS, labels), *again]


def _labels(name: str, queue: str, tenant: str) -> dict[str, str]:
    return {"task_name": name, "queue": queue, "tenant": tenant or tenant_of_queue(queue)}


def _task_buckets() -> tuple[float, ...]:
    """Of the topology as it is now, as the exporter has them: a tenant that comes may have the longest limit."""
    return task_buckets(process_topology.current().longest_time_limit)


def _stamp(headers: dict[str, Any], **_: Any) -> None:
    # Text, as all of this project's headers: it goes along when the message is put off, and is written anew when it is sent.
    headers[SENT_HEADER] = f"{time.time():.3f}"


def _sent_at(request: Any) -> float | None:
    try:
        return float(request.get(SENT_HEADER))
    except (TypeError, ValueError):
        # Of a sender that is not this project's.
        return None


def _queue(request: Any) -> str:
    return str(_delivery(request).get("routing_key") or "")


def _delivery(request: Any) -> Mapping[str, object]:
    return cast("Mapping[str, object] | None", request.delivery_info) or {}


def _begin(task_id: str, task: Any, **_: Any) -> None:
    _began[task_id] = time.monotonic()
    json_logs.about(task_id=task_id, tenant=task_tenant_id())
    sent_at = _sent_at(task.request)
    if sent_at is not None:
        redelivered = bool(_delivery(task.request).get("redelivered"))
        waited = time.time() - sent_at
        counters.count_all(wait_increments(_queue(task.request), task_tenant_id(), waited, redelivered=redelivered))


def _end(task_id: str, task: Any, retval: object, state: str | None = None, **_: Any) -> None:
    json_logs.forget()
    began = _began.pop(task_id, None)
    ended = outcome(state or "", retval)
    if began is None or ended is None:
        return
    seconds = time.monotonic() - began
    counters.count_all(increments(task.name, _queue(task.request), task_tenant_id(), ended, seconds, bounds=_task_buckets()))
