"""What happens now, as data for an operator: queues with who waits in them, workers, and queries that have not ended.

Pure: what was read of the broker, the coordination database and the metadata database is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runtime.broker.reserved_tasks import Reserved
from runtime.observability.exporter import Reading
from runtime.queries.executions import TABLE
from topology.model import Topology

Kind = Literal["sql", "chart"]
State = Literal["waiting", "running"]
#: Users named in a queue's row: those with most queries waiting there.
MOST_USERS = 5
#: Hours of executions from which the time that a query takes is known.
RECENT_HOURS = 1
#: SQL for `Recent` rows: executions that ended lately.
RECENT = f"""
SELECT queue, count(*), coalesce(avg(extract(epoch FROM ended_at - started_at)), 0)
FROM {TABLE} WHERE ended_at > now() - make_interval(hours => {RECENT_HOURS}) GROUP BY queue
"""


@dataclass(frozen=True)
class Open:
    """A query of SQL Lab (`id`: its number) or an asynchronous chart (its job's id) that has not ended.

    `seconds`: for how long it has been in its state. `worker` is None while it waits.
    """

    kind: Kind
    id: str
    state: State
    queue: str
    tenant: str
    username: str
    database: str
    seconds: float
    worker: str | None = None


@dataclass(frozen=True)
class Recent:
    """Executions of one queue that ended lately: how many, and the mean of the seconds that they took."""

    queue: str
    ended: int
    mean_seconds: float


def queues(
    topology: Topology, reading: Reading, workers: Sequence[Reserved], work: Sequence[Open], recent: Sequence[Recent]
) -> list[dict[str, Any]]:
    """A row for each queue, in the topology's order.

    `expected_wait_seconds` is that of a query which is submitted now: what waits before it, by the mean time of those that
    ended lately, over the slots that serve the queue; None where none ended lately, or no worker listens. `problem` is what
    keeps the queue from being worked off, else None.
    """
    by_queue = {each.queue: each for each in recent}
    waiting_users = {queue: Counter[str]() for queue in topology.celery.queues}
    for each in work:
        if each.state == "waiting" and each.queue in waiting_users:
            waiting_users[each.queue][each.username or "(guest)"] += 1
    rows: list[dict[str, Any]] = []
    for queue in topology.celery.queues:
        serving = [worker.service for worker in workers if queue in worker.service.queues]
        slots = sum(service.slots for service in serving)
        waiting = reading.waiting.get(queue, 0)
        lately = by_queue.get(queue)
        wait = waiting * lately.mean_seconds / slots if lately and slots else 0.0 if slots and not waiting else None
        rows.append(
            {
                "queue": queue,
                "waiting": waiting,
                "oldest_seconds": round(reading.oldest_waiting.get(queue, 0.0), 1),
                "in_flight": None if reading.in_flight is None else reading.in_flight.get(queue, 0),
                "workers": len(serving),
                "slots": slots,
                "bound": topology.resilience.max_queued,
                "expected_wait_seconds": None if wait is None else round(wait, 1),
                "waiting_users": dict(waiting_users[queue].most_common(MOST_USERS)),
                "problem": _problem(topology, queue, waiting, len(serving)),
            }
        )
    return rows


def _problem(topology: Topology, queue: str, waiting: int, workers: int) -> str | None:
    pools = [pool for pool in topology.pools if queue in pool.queues]
    if not workers and waiting:
        names = ", ".join(pool.name for pool in pools)
        return f"no worker listens to it: is a worker of pool {names} running?"
    least = sum(1 if pool.elastic else pool.min_workers for pool in pools)
    if workers < least:
        return f"{workers} of at least {least} workers listen to it"
    if waiting >= topology.resilience.max_queued:
        return "it is full: submissions are refused"
    return None


def workers(published: Sequence[Reserved], work: Sequence[Open]) -> list[dict[str, Any]]:
    """A row for each worker that lives, by name; `queries` are the ids of those that it runs."""
    running = [each for each in work if each.state == "running"]
    return [
        {
            "worker": worker.worker,
            "state": _state(worker),
            "slots": worker.service.slots,
            "reserved": len(worker.tasks),
            "queues": list(worker.service.queues),
            "queries": [each.id for each in running if each.worker == worker.worker],
        }
        for worker in sorted(published, key=lambda each: each.worker)
    ]


def _state(worker: Reserved) -> str:
    if worker.service.queues:
        return "working" if worker.tasks else "idle"
    return "draining" if worker.tasks else "drained"


def open_queries(work: Sequence[Open]) -> list[dict[str, Any]]:
    """A row for each query that has not ended: those that run first, and of each state the oldest first."""
    ordered = sorted(work, key=lambda each: (each.state != "running", -each.seconds))
    return [asdict(each) | {"seconds": round(each.seconds, 1)} for each in ordered]


def place(work: Sequence[Open], id: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Where the query of SQL Lab with this `id` waits: its queue, how many are before it there (charts too), and the seconds
    that it may expect to wait yet (None where nobody knows). None where it does not wait.
    """
    mine = next((each for each in work if each.kind == "sql" and each.id == id and each.state == "waiting"), None)
    if mine is None:
        return None
    before = sum(each.state == "waiting" and each.queue == mine.queue and each.seconds > mine.seconds for each in work)
    row = next((row for row in rows if row["queue"] == mine.queue), None)
    whole = row["expected_wait_seconds"] if row else None
    waiting = row["waiting"] if row else 0
    expected = None if whole is None else round(whole * min(before, waiting) / waiting, 1) if waiting else 0.0
    return {"queue": mine.queue, "before": before, "expected_wait_seconds": expected}
