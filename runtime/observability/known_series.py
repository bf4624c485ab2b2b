"""The series of a stack that exist from its start, at 0: without them Prometheus's `increase()` misses the first event of each.

Pure: from a topology to names and labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runtime.queries.executions import STATUSES
from runtime.tenants.router import CHART_DATA_TASK, SQL_LAB_TASK
from topology import metric_names
from topology.histograms import RESULT_BUCKETS, WAIT_BUCKETS, task_buckets
from topology.model import Topology

Labels = Mapping[str, str]

#: Labels of the counters that do not depend on a topology.
FIXED: dict[str, tuple[Labels, ...]] = {
    metric_names.REAPED: tuple({"what": what} for what in ("message", "copy", "query", "job", "abandoned")),
    metric_names.POISON: tuple(
        {"where": where}
        for where in ("unacked", "queue", "jobs", "message", "task", "unknown_task", "delayed", "lease", "reserved")
    ),
    metric_names.ATTEMPTS: tuple({"kind": kind, "attempt": attempt} for kind in ("sql", "chart") for attempt in ("1", "2")),
    metric_names.RETRIES: tuple({"kind": kind} for kind in ("sql", "chart")),
    metric_names.DELIVERIES_IGNORED: tuple(
        {"kind": kind, "reason": reason} for kind in ("sql", "chart") for reason in ("ended", "running", "database_away")
    ),
    metric_names.RESULTS_FAILED: tuple(
        {"cache": cache, "operation": operation}
        for cache in ("query_results", "data_cache")
        for operation in ("read", "write")
    ),
    metric_names.CACHE_READS: tuple({"cache": "data_cache", "result": result} for result in ("hit", "miss")),
    metric_names.CACHE_REFUSED: tuple({"cache": cache} for cache in ("query_results", "data_cache")),
    metric_names.CACHE_TOO_LARGE: tuple({"cache": cache} for cache in ("query_results", "data_cache")),
    metric_names.CACHE_SPILLED: tuple({"cache": cache} for cache in ("query_results", "data_cache")),
    metric_names.CACHE_WAITED: ({},),
    metric_names.CACHE_SAVED: ({},),
    metric_names.CACHE_REFRESHED: ({},),
    metric_names.CHARTS_FOLLOWED: ({},),
}


def at_zero(topology: Topology) -> Iterator[tuple[str, Labels]]:
    """Name and labels of every such series."""
    for name, known in FIXED.items():
        yield from ((name, labels) for labels in known)
    for queue in topology.celery.queues:
        yield metric_names.REDELIVERED, {"queue": queue}
        for reason in ("queue_full", "user_in_flight"):
            yield metric_names.REFUSED, {"queue": queue, "reason": reason}
    for reason in ("web_full", "user_in_flight"):
        yield metric_names.REFUSED, {"queue": "web", "reason": reason}
    for place in places(topology):
        yield from _histogram(metric_names.WAIT_SECONDS, WAIT_BUCKETS, place)
        for task in (SQL_LAB_TASK, CHART_DATA_TASK):
            labels = {"task_name": task, **place}
            yield metric_names.TASKS_SUBMITTED, labels
            for status, reason in STATUSES.values():
                yield metric_names.TASKS_COMPLETED, {**labels, "status": status, "reason": reason}
            yield from _histogram(metric_names.TASK_SECONDS, task_buckets(topology.longest_time_limit), labels)
    for cache in ("query_results", "data_cache"):
        for operation in ("read", "write"):
            labels = {"cache": cache, "operation": operation}
            yield from _histogram(metric_names.RESULTS_SECONDS, RESULT_BUCKETS, labels)


def places(topology: Topology) -> Iterator[Labels]:
    """Each queue with the tenant whose own it is (empty: nobody's), and the urgent queue with every tenant."""
    tenants = {tenant.queue: tenant.id for tenant in topology.tenants}
    for queue in topology.celery.queues:
        yield {"queue": queue, "tenant": tenants.get(queue, "")}
    if topology.urgent and topology.urgent.queue not in tenants:
        for tenant in topology.tenants:
            yield {"queue": topology.urgent.queue, "tenant": tenant.id}


def _histogram(name: str, bounds: tuple[float, ...], labels: Labels) -> Iterator[tuple[str, Labels]]:
    for bound in (*(f"{each:g}" for each in bounds), "+Inf"):
        yield f"{name}_bucket", {**labels, "le": bound}
    yield f"{name}_sum", labels
    yield f"{name}_count", labels
