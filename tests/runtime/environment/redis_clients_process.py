"""Run in Superset's environment: every client of Redis that Superset's configuration makes does what it is for.

Usage: python -m tests.runtime.environment.redis_clients_process PORTS, where PORTS is JSON: the port on this machine of each
host that the topology names, instead of its own; the names stay what certificates are verified against. Prints, as JSON, what
each client got: "ok", or its error.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from celery.contrib.testing.worker import start_worker

from runtime.environment import coordination
from runtime.environment.process_topology import load_topology
from runtime.observability import exporter


def here(ports: dict[str, int]) -> None:
    """Resolve each of these hosts to its port on this machine, as a cluster's DNS and network would."""
    resolve: Any = socket.getaddrinfo

    def on_loopback(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host in ports:
            host, port = "127.0.0.1", ports[host]
        return resolve(host, port, *arguments, **options)

    socket.getaddrinfo = on_loopback  # type: ignore[assignment]


def celery_runs_a_task(celery: Any) -> None:
    """A task goes out, a worker of this process takes it from the broker, and its result comes back from the store."""

    def double(number: int) -> int:
        return 2 * number

    task = celery.task(name="tests.double")(double)
    celery.conf.worker_hijack_root_logger = False
    sent = task.apply_async((21,), queue=celery.conf.task_default_queue, retry=False)
    with start_worker(celery, pool="solo", perform_ping_check=False, shutdown_timeout=30):
        wait_for(lambda: celery.backend.get_task_meta(sent.id)["status"] == "SUCCESS")
    assert celery.backend.get_task_meta(sent.id)["result"] == 42
    celery.backend.forget(sent.id)


def celery_sends(celery: Any) -> None:
    """A submission reaches the broker, or fails at once."""
    celery.send_task("tests.nothing", queue=celery.conf.task_default_queue, retry=False)
    with celery.connection_for_write() as connection:
        connection.default_channel.queue_purge(celery.conf.task_default_queue)


def keeps(cache: Any) -> None:
    """What is set is got back, and goes."""
    key, value = uuid.uuid4().hex, uuid.uuid4().hex
    assert cache.set(key, value)
    assert cache.get(key) == value
    cache.delete(key)
    assert cache.get(key) is None


def events_arrive(manager: Any) -> None:
    """A chart's event is written to its channel and read from it."""
    job = {"channel_id": uuid.uuid4().hex, "job_id": "1", "user_id": 1, "status": "pending", "errors": [], "result_url": ""}
    manager.update_job(job, "done")
    (event,) = manager.read_events(job["channel_id"], None)
    assert event["status"] == "done"


def counts(storage: Any) -> None:
    """The store of rate limits counts, by its script."""
    key = uuid.uuid4().hex
    assert [storage.incr(key, 60) for _ in range(2)] == [1, 2]


def exports(look: Callable[[], Any]) -> None:
    """The exporter sees the queues."""
    assert "default" in look().waiting


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    """Return as soon as `true()` is."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def main() -> None:
    """Start Superset, use every client, and print what each got."""
    here(json.loads(sys.argv[1]))
    refused = sys.argv[2:] == ["--refused"]
    from superset.app import create_app

    app: Any = create_app()
    broker = exporter.broker(load_topology(os.environ), os.environ)
    with app.app_context():
        from superset import extensions

        caches, celery = extensions.cache_manager, extensions.celery_app
        uses: dict[str, Callable[[], object]] = {
            # A worker that is refused tries again for ever.
            "broker": lambda: celery_sends(celery) if refused else celery_runs_a_task(celery),
            "results": lambda: celery.backend.get_task_meta("none"),
            "metadata_cache": lambda: keeps(caches.cache.cache),
            "data_cache": lambda: keeps(caches.data_cache.cache),
            "filter_state": lambda: keeps(caches.filter_state_cache.cache),
            "explore_form_data": lambda: keeps(caches.explore_form_data_cache.cache),
            "query_results": lambda: keeps(extensions.results_backend_manager.results_backend),
            "async_events": lambda: events_arrive(extensions.async_query_manager),
            "rate_limits": lambda: counts(app.appbuilder.sm.limiter._storage),
            "coordination": lambda: coordination.client().hincrby(coordination.key("test"), "tried", 1),
            "exporter": lambda: exports(broker.read),
        }
        told: dict[str, str] = {}
        for name, use in uses.items():
            try:
                use()
            except Exception as error:
                told[name] = f"{type(error).__name__}: {error} {error.__cause__ or ''}"
            else:
                told[name] = "ok"
    print(json.dumps(told))


if __name__ == "__main__":
    main()
