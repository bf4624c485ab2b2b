"""Alerts fire for real: each fault is caused on a platform with its own Prometheus, until the alert that is for it fires.

First nothing is wrong, and nothing but the watchdog fires. Takes half an hour, since most alerts wait for minutes on purpose;
needs Debian's prometheus and prometheus-alertmanager. `python -m bench.scenarios.alerts` runs it alone.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.report import Check, show
from bench.world import Load, World
from client.errors import ClientError

#: Seconds without a fault, and the longest that any alert may take.
HEALTHY, PATIENCE = 180.0, 900.0
#: What is caused, in this order.
PARTS = ("healthy", "worker", "no-worker", "stores")
#: So that a backlog is 20 messages, and more than 40 are refused.
MAX_QUEUED = 40
SETTINGS: dict[str, Any] = {
    "topology": "enterprise",
    "workers": {"concurrency": 2, "min_workers": 1, "max_workers": 1},
    "resilience": {"max_queued": MAX_QUEUED},
    "redis": {"broker": {"maxmemory": "256Mi"}, "cache": {"maxmemory": "256Mi"}},
}
WORKER, BEAT, EXPORTER, BROKER, CACHE = "worker-default", "beat", "exporter", "redis-broker", "redis-cache"


@dataclass
class Prometheus:
    """The platform's own: what fires now, and when each alert did so first since a fault."""

    url: str
    say: Callable[[str], None]
    checks: list[Check] = field(default_factory=list[Check])

    def firing(self) -> set[str]:
        """Names of the alerts that fire, but for the watchdog; TransportError where it does not answer."""
        answer = httpx.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {one["labels"]["alertname"] for one in answer if one["state"] == "firing"} - {"Watchdog"}

    def await_alerts(self, fault: str, *wanted: str) -> None:
        """Wait until each alert of `wanted` has fired, and note how long after the fault that was."""
        began, left = time.monotonic(), set(wanted)
        while left and time.monotonic() - began < PATIENCE:
            for name in sorted(left & self.firing()):
                left.discard(name)
                seconds = time.monotonic() - began
                self.say(f"{fault}: {name} after {seconds:.0f} s")
                self.checks.append(Check(fault, f"{name} fires", f"after {seconds:.0f} s", held=True))
            time.sleep(1)
        self.checks += [Check(fault, f"{name} fires", f"not within {PATIENCE:.0f} s", held=False) for name in sorted(left)]

    def await_silence(self, fault: str, *names: str) -> None:
        """Wait until none of `names` fires any more."""
        began = time.monotonic()
        while (still := self.firing() & set(names)) and time.monotonic() - began < PATIENCE:
            time.sleep(1)
        seconds = time.monotonic() - began
        self.checks.append(Check(fault, f"{', '.join(names)} end", f"{seconds:.0f} s after its repair", held=not still))


def run(say: Callable[[str], None] = print, healthy: float = HEALTHY, parts: Sequence[str] = PARTS) -> list[Check]:
    """Cause the faults of `parts` one after the other; what fired, after how many seconds."""
    with World(SETTINGS, say, observe=True) as world:
        watch = Prometheus(f"http://127.0.0.1:{world.topology.monitoring.prometheus_port}", say)
        cause: dict[str, Callable[[], None]] = {
            "healthy": lambda: _nothing(world, watch, healthy),
            "worker": lambda: _with_a_worker(world, watch),
            "no-worker": lambda: _without_a_worker(world, watch),
            "stores": lambda: _without_stores(world, watch),
        }
        for part in parts:
            world.log_in_again()
            cause[part]()
        return watch.checks


def _nothing(world: World, watch: Prometheus, seconds: float) -> None:
    """Load, and no fault."""
    heard: set[str] = set()
    ended = time.monotonic() + seconds
    with Load(world, clients=4, sql=lambda n: f"SELECT {n} AS number", think=1.0) as load:
        while time.monotonic() < ended:
            heard |= watch.firing()
            time.sleep(1)
    said = f"{dict(load.counts())} in {seconds:.0f} s; fired: {', '.join(sorted(heard)) or 'none'}"
    watch.say(said)
    watch.checks.append(Check("no fault, 4 clients", "no alert but the watchdog", said, held=not heard))


def _with_a_worker(world: World, watch: Prometheus) -> None:
    broker = world.redis("broker")
    most = broker.config_get("maxmemory")["maxmemory"]
    broker.config_set("maxmemory", int(int(broker.info("memory")["used_memory"]) / 0.9))
    with _background(world, lambda n: f"SELECT {n} / 0 AS broken"):
        broker.lpush("default", "what is no message")
        watch.await_alerts(
            "queries that fail, a foreign message, the broker's memory at 90 %",
            "AsyncForeignMessages",
            "AsyncTaskFailureRateHigh",
            "AsyncBrokerMemoryHigh",
        )
    # What an operator who knows Redis as a cache would do.
    broker.config_set("maxmemory-policy", "allkeys-lru")
    broker.set("sacrifice", "x" * 1000)
    broker.config_set("maxmemory", int(int(broker.info("memory")["used_memory"]) - 1000))
    watch.await_alerts("allkeys-lru and a full broker", "AsyncBrokerEvicts")
    broker.config_set("maxmemory", most)
    broker.config_set("maxmemory-policy", "noeviction")
    watch.await_silence("the broker has room again", "AsyncBrokerMemoryHigh")


def _without_a_worker(world: World, watch: Prometheus) -> None:
    world.stop(WORKER)
    world.stop(BEAT)
    with _background(world, lambda n: f"SELECT {n} AS waits", clients=MAX_QUEUED + 5):
        watch.await_alerts(
            "no worker, no beat, more queries than the queue takes",
            "AsyncQueueWithoutWorkers",
            "AsyncWorkersBelowExpected",
            "AsyncBeatSilent",
            "AsyncOldestMessageTooOld",
            "AsyncSubmissionsRefused",
            "AsyncQueueDepthHigh",
        )
        world.supervisor.start_process(WORKER)
        world.supervisor.start_process(BEAT)
        watch.await_alerts("what had waited begins", "AsyncQueriesWaitTooLong")
    watch.await_silence(
        "worker and beat are back", "AsyncQueueWithoutWorkers", "AsyncBeatSilent", "AsyncOldestMessageTooOld"
    )


def _without_stores(world: World, watch: Prometheus) -> None:
    world.stop(CACHE)
    with _background(world, lambda n: f"SELECT {n} AS kept_nowhere"):
        watch.await_alerts("the cache's Redis is down", "AsyncResultsBackendFailing")
    world.supervisor.start_process(CACHE)
    world.stop(BROKER)
    watch.await_alerts("the broker is down", "AsyncBrokerUnreadable")
    world.supervisor.start_process(BROKER)
    watch.await_silence("the broker is back", "AsyncBrokerUnreadable")
    world.stop(EXPORTER)
    watch.await_alerts("the exporter is down", "AsyncExporterLost")
    world.supervisor.start_process(EXPORTER)
    watch.await_silence("the exporter is back", "AsyncExporterLost")


@contextmanager
def _background(world: World, sql: Callable[[int], str], clients: int = 4) -> Generator[None]:
    """Users who submit until the block ends, whatever becomes of it; nobody waits for their last answers."""
    ended = threading.Event()

    def user() -> None:
        number = 0
        with world.client() as client:
            while not ended.wait(1.0):
                number += 1
                try:
                    client.submit(sql(number), world.database_id)
                except ClientError as error:
                    # Refused, or the platform is broken: that is what the block is about.
                    if number == 1:
                        world.say(f"not taken: {type(error).__name__}")

    threads = [threading.Thread(target=user, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()


def main() -> int:
    """Run the scenario alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=float, default=HEALTHY, help="seconds of load without a fault")
    # argparse checks the empty list too.
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which faults; default: all")
    arguments = parser.parse_args()
    checks = run(healthy=arguments.healthy, parts=arguments.parts or PARTS)
    show(checks)
    return 0 if all(check.held for check in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
