"""What the stack's processes tell each other in the coordination database, as metrics: counters, workers, the reaper's last look.

Which series there are is bounded: those of queues and tenants that the stack has, and `MOST_SERIES` in all.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis import Redis, RedisError

from runtime.broker import reserved_tasks
from runtime.broker.reserved_tasks import Service
from runtime.environment.coordination import OLDEST_RUNNING, REAPED_AT
from runtime.environment.counters import COUNTERS
from runtime.observability import known_series
from topology import metric_names
from topology.model import Topology

#: Names of the counters, and of those of a histogram, and of labels that Prometheus takes.
COUNTER, LABEL = re.compile("([a-z][a-z0-9_]*)_(total|bucket|sum|count)"), re.compile("[a-z][a-z0-9_]*")
#: Series of counters that are served. 50 tenants have 5 500.
MOST_SERIES = 50_000

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True)
class Shared:
    """Counters by metric, and what each worker that lives serves; of the reaper's last look its time, and for how long the query
    that had run for longest had run, in seconds (None: it has not looked yet).
    """

    counters: Mapping[str, Sequence[Sample]]
    services: Sequence[Service] = ()
    reaped_at: float | None = None
    oldest_seconds: float | None = None


def read_shared(connection: Redis[bytes], prefix: str) -> Shared:
    """What the coordination database has; RedisError where it cannot be read. What is no counter is left out."""
    counters: dict[str, list[Sample]] = {}
    for field, value in connection.hgetall(f"{prefix}{COUNTERS}").items():
        with suppress(ValueError, TypeError):
            name, labels = json.loads(field)
            if COUNTER.fullmatch(name) and all(LABEL.fullmatch(label) for label in labels):
                sample = ({key: str(text) for key, text in labels.items()}, float(value))
                # ValueError for a bucket whose bound is no number.
                _bound(sample)
                counters.setdefault(name, []).append(sample)
    reaped_at, oldest = connection.mget(f"{prefix}{REAPED_AT}", f"{prefix}{OLDEST_RUNNING}")
    services = [worker.service for worker in reserved_tasks.workers(connection, prefix)]
    return Shared(counters, services, float(reaped_at) if reaped_at else None, float(oldest) if oldest is not None else None)


def served(
    topology: Topology, counters: Mapping[str, Sequence[Sample]], most: int = MOST_SERIES
) -> tuple[dict[str, list[Sample]], int]:
    """The series to serve, by metric, with those that have counted nothing yet; and how many are left out.

    Left out are those of a queue or tenant that the stack has no more, and what is beyond `most`.
    """
    known = {"queue": {*topology.celery.queues, ""}, "tenant": {*(tenant.id for tenant in topology.tenants), ""}}
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for name, labels in known_series.at_zero(topology):
        found[name][_key(labels)] = 0.0
    count, omitted = sum(map(len, found.values())), 0
    for name in sorted(counters):
        for labels, value in counters[name]:
            key = _key(labels)
            new = key not in found[name]
            gone = any(label in labels and labels[label] not in values for label, values in known.items())
            if gone or (new and count >= most):
                omitted += 1
                continue
            count += new
            found[name][key] = value
    return {name: [(dict(key), value) for key, value in series.items()] for name, series in found.items() if series}, omitted


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


class SharedMetrics(Collector):
    """What processes of the stack count in Redis, which workers live, and what the topology says of each queue."""

    def __init__(self, read: Callable[[], Shared], topology: Callable[[], Topology]) -> None:
        self._read = read
        self._topology = topology

    def collect(self) -> Iterator[Metric]:
        """What the topology says always; the rest where Redis can be read."""
        plan = self._topology()
        yield from _planned(plan)
        try:
            shared = self._read()
        except (RedisError, OSError, ValueError):
            return
        series, omitted = served(plan, shared.counters)
        yield from _counted(series)
        yield GaugeMetricFamily(metric_names.SERIES_OMITTED, "Series that were counted and are not served", omitted)
        workers, slots = dict.fromkeys(plan.celery.queues, 0), dict.fromkeys(plan.celery.queues, 0)
        for service in shared.services:
            for queue in workers.keys() & set(service.queues):
                workers[queue] += 1
                slots[queue] += service.slots
        yield by_queue(metric_names.WORKERS, "Workers that listen to the queue", workers)
        yield by_queue(metric_names.WORKER_SLOTS, "Tasks that they execute at once", slots)
        if shared.reaped_at is not None:
            yield GaugeMetricFamily(metric_names.REAPED_AT, "When the reaper last looked, in Unix time", shared.reaped_at)
        if shared.oldest_seconds is not None:
            said = "Seconds for which the query that ran for longest had run at the reaper's last look"
            yield GaugeMetricFamily(metric_names.OLDEST_RUNNING, said, shared.oldest_seconds)


def _planned(topology: Topology) -> Iterator[Metric]:
    queues = topology.celery.queues
    least, most = dict.fromkeys(queues, 0), dict.fromkeys(queues, 0)
    for pool in topology.pools:
        for queue in pool.queues:
            # One that grows and shrinks by itself stands for all of its pool's.
            least[queue] += 1 if pool.elastic else pool.min_workers
            most[queue] += 1 if pool.elastic else pool.max_workers if pool.scaling else pool.min_workers
    limits = dict.fromkeys(queues, topology.celery.time_limit_seconds)
    limits |= {tenant.queue: tenant.time_limit_seconds for tenant in topology.tenants}
    bounds = dict.fromkeys(queues, topology.resilience.max_queued)
    yield by_queue(metric_names.BOUND, "Messages in the queue beyond which a submission is refused", bounds)
    yield by_queue(metric_names.WORKERS_EXPECTED, "The least workers of the pools that listen to the queue", least)
    yield by_queue(metric_names.WORKERS_MAX, "The most workers of the pools that listen to the queue", most)
    yield by_queue(metric_names.TIME_LIMIT, "Seconds after which a task of the queue is killed", limits)


def _counted(series: Mapping[str, Sequence[Sample]]) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for name in sorted(series):
        base, _, part = name.rpartition("_")
        kind = "counter" if part == "total" else "histogram" if f"{base}_bucket" in series else "summary"
        made = Metric(base, "Counted by the stack's processes; see docs/metrics.md", kind)
        family = families.setdefault(base, made)
        for labels, value in sorted(series[name], key=_bound):
            family.add_sample(name, dict(labels), value)
    yield from families.values()


def _bound(sample: Sample) -> tuple[list[tuple[str, str]], float]:
    """Sorts the buckets of a histogram by their bounds, those of each other label together."""
    labels = sample[0]
    return sorted((name, text) for name, text in labels.items() if name != "le"), float(labels.get("le", "inf"))


def by_queue(name: str, documentation: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge with a value for each queue."""
    family = GaugeMetricFamily(name, documentation, labels=[metric_names.QUEUE_LABEL])
    for queue, value in values.items():
        family.add_metric([queue], value)
    return family
