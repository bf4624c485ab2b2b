"""Forged and malformed things in the broker and the caches, under load: dropped and counted, and nobody stalls.

`python -m bench.scenarios.poison` runs it alone.
"""

from __future__ import annotations

import base64
import json
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.report import Check, percentiles, show
from bench.world import Load, World

CLIENTS = 50
SETTINGS: dict[str, Any] = {
    "topology": "enterprise",
    "web": {"processes": 2, "threads": 20, "min_replicas": 1, "max_replicas": 1},
    "workers": {"concurrency": 4, "min_workers": 1, "max_workers": 1, "scaling": None},
    # All clients are one user.
    "resilience": {"max_in_flight_per_user": 10_000},
    "caching": {"max_result": "1Mi"},
}


class Forged:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (open, (str(self.path), "w"))


def forged(good: dict[str, Any], path: Path) -> list[bytes]:
    """What is put into the queue."""
    headers = good["headers"]
    call = base64.b64encode(pickle.dumps(Forged(path))).decode()
    changed: list[object] = [
        {},
        12,
        [],
        None,
        {**good, "properties": None},
        {**good, "body": "!!!"},
        {**good, "body": base64.b64encode(b"7").decode()},
        {**good, "headers": None},
        {**good, "headers": {**headers, "timelimit": "forged"}},
        {**good, "headers": {**headers, "eta": "forged"}},
        {**good, "headers": {**headers, "task": "unknown.task"}},
        {**good, "headers": {**headers, "task": "load_chart_data_into_cache"}},
        {**good, "content-type": "application/x-python-serialize", "content-encoding": "binary", "body": call},
    ]
    return [b"no json \xff", *(json.dumps(value).encode() for value in changed)]


def _good(world: World) -> dict[str, Any]:
    """A message as Superset sends it; its query is stopped, and it is not in the queue."""
    world.stop("worker-default")
    with world.client() as client:
        client.submit("SELECT 1", world.database_id)
    redis, queue = world.redis(), world.topology.celery.default_queue
    # Beat's jobs are there too.
    text = next(it for it in redis.lrange(queue, 0, -1) if json.loads(it)["headers"]["task"] == "sql_lab.get_sql_results")
    redis.lrem(queue, 1, text)
    world.sql("UPDATE query SET status = 'stopped' WHERE status = 'pending'")
    world.supervisor.start_process("worker-default")
    return dict(json.loads(text))


def _counters(world: World, name: str) -> dict[str, int]:
    database = world.topology.database("coordination")
    found = world.redis(number=database.number).hgetall(f"{database.prefix}counters")
    # Forged ones are among them.
    own = [(json.loads(field), value) for field, value in found.items() if field.startswith(f'["{name}"'.encode())]
    return {",".join(labels.values()): int(float(value)) for (_, labels), value in own}


def _metrics(world: World) -> str:
    exporter = world.topology.exporter
    return httpx.get(f"http://{exporter.host}:{exporter.port}/metrics", timeout=15, trust_env=False).text


def _poison(world: World, good: dict[str, Any], path: Path) -> int:
    """Put everything everywhere; how many messages were put into the queue."""
    broker, queue = world.redis(), world.topology.celery.default_queue
    messages = forged(good, path)
    for message in messages:
        broker.lpush(queue, message)
        time.sleep(0.2)
    for number, value in enumerate((b"no message", b"12", b"[]", json.dumps([{}, "", "elsewhere"]).encode())):
        broker.hset("unacked", f"forged-{number}", value)
        broker.zadd("unacked_index", {f"forged-{number}": 1.0})
    database = world.topology.database("coordination")
    coordination = world.redis(number=database.number)
    coordination.hset(f"{database.prefix}jobs", "forged", "no job")
    coordination.hset(f"{database.prefix}counters", "forged", "no number")
    return len(messages)


def _forged_results(world: World, path: Path) -> str:
    """Overwrite the stored rows of a query with a program, and ask for them."""
    with world.client() as client:
        status = client.wait(client.submit("SELECT 42 AS n", world.database_id), timeout=60, pending_timeout=None)
        database = world.topology.database("query_results")
        cache = world.redis("cache", database.number)
        keys = cache.keys("*")
        for key in keys:
            cache.set(key, pickle.dumps(Forged(path)), ex=600)
        try:
            client.results(status)
        except Exception as error:
            return f"{len(keys)} values forged: {type(error).__name__}: {str(error)[:90]}"
    return f"{len(keys)} values forged, and rows were answered"


def _huge(world: World) -> str:
    """A result above the stack's bound."""
    with world.client() as client:
        sql = "SELECT md5(random()::text) || md5(random()::text) AS a FROM generate_series(1, 90000)"
        try:
            status = client.wait(client.submit(sql, world.database_id, limit=100000), timeout=90, pending_timeout=None)
            client.results(status)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:150]}"
    return ""


def run(say: Callable[[str], None] = print) -> list[Check]:
    """Everything at once, under load."""
    fault = f"forged messages, jobs and values, {CLIENTS} clients"
    with World(SETTINGS, say) as world:
        path = world.folder / "executed"
        good = _good(world)
        with world.client() as client:
            # The worker works again when it has answered.
            client.wait(client.submit("SELECT 1", world.database_id), timeout=120, pending_timeout=None)
        workers = world.pid("worker-default"), world.pid("exporter"), world.pid("beat")
        with Load(world, clients=CLIENTS, sql=lambda n: f"SELECT wait_seconds(0.2, {n})", think=0.5) as load:
            time.sleep(10)
            before = len(load.outcomes)
            poisoned = threading.Thread(target=lambda: counts.append(_poison(world, good, path)))
            counts: list[int] = []
            poisoned.start()
            poisoned.join(60)
            time.sleep(45)
        after = list(load.outcomes[before:])
        failed = [outcome for outcome in load.outcomes if outcome.kind != "success"]
        poison = _counters(world, "superset_async_poison_total")
        seen = world.pid("worker-default"), world.pid("exporter"), world.pid("beat")
        left = world.redis().hlen("unacked"), world.redis().llen(world.topology.celery.default_queue)
        metrics = _metrics(world)
        huge, results = _huge(world), _forged_results(world, path)
        return [
            Check(
                fault,
                "each is dropped and counted",
                f"{counts[0]} messages, 4 delivered, 1 job: {poison}; left {left}",
                held=sum(poison.values()) >= counts[0] + 5 and left == (0, 0),
            ),
            Check(
                fault,
                "nobody stalls",
                f"{len(after)} queries after it, {len(failed)} failed, {percentiles([it.seconds for it in after])}",
                held=len(after) > 100 and not failed,
            ),
            Check(
                fault, "worker, exporter and beat live on", f"pids {workers}, {seen}", held=workers == seen and 0 not in seen
            ),
            Check(
                fault,
                "the exporter serves what is no forgery",
                f"{metrics.count('superset_async_poison_total')} samples of poison",
                held="celery_queue_depth" in metrics and "superset_async_reaper_last_run_timestamp" in metrics,
            ),
            Check("a result above max_result", "is refused in words", huge or "rows were answered", held=bool(huge)),
            Check(
                "stored rows replaced by a program",
                "are not loaded, and nothing of it runs",
                f"{results}; executed: {path.exists()}",
                held=not path.exists() and "answered" not in results,
            ),
        ]


if __name__ == "__main__":
    show(run())
