"""Alerts fire for real: each fault is caused on a platform with its own Prometheus, until the alert that is for it fires.

First nothing is wrong, and nothing but the watchdog fires. Takes an hour, since most alerts wait for minutes on purpose; needs
Debian's prometheus and prometheus-alertmanager. `python -m bench.scenarios.alerts` runs it alone. With `--shorten 5` alerts that
wait for five minutes and more wait for a fifth of it; with `--pictures FOLDER` the dashboard is drawn there, under load, during a
fault and after it.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from bench.pictures import draw
from bench.report import Check, show
from bench.world import Load, World
from client.errors import ClientError
from local import observing
from local.processes import SAMPLE_DATABASE

#: Seconds without a fault, and the longest that any alert may take.
HEALTHY, PATIENCE = 180.0, 900.0
#: What is caused, in this order.
PARTS = ("healthy", "worker", "no-worker", "stores", "slow-cache", "stuck", "disk", "limits", "after")
#: After which the dashboard is drawn, and the title of the picture.
DRAWN = {"healthy": "Under load", "limits": "Every query reaches its limit", "after": "After the fault"}
#: Minutes from which `--shorten` shortens a wait.
LONG_MINUTES = 5
#: Queries that are lost at once; of fewer in an hour nobody is woken where there is load.
LOST = 90
#: Seconds for which the cache's Redis hangs, and in which it then answers.
HANGS, ANSWERS = 2.5, 0.2
#: So that a backlog is 20 messages, and more than 40 are refused.
MAX_QUEUED = 40
SETTINGS: dict[str, Any] = {
    "topology": "enterprise",
    "workers": {"concurrency": 2, "min_workers": 1, "max_workers": 1},
    "resilience": {"max_queued": MAX_QUEUED},
    "redis": {"broker": {"maxmemory": "256Mi"}, "cache": {"maxmemory": "256Mi"}},
    # No query of the others takes as long.
    "databases": {SAMPLE_DATABASE: {"sample": True, "statement_timeout": 5}},
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


def run(
    say: Callable[[str], None] = print,
    healthy: float = HEALTHY,
    parts: Sequence[str] = PARTS,
    shorten: int = 1,
    pictures: Path | None = None,
) -> list[Check]:
    """Cause the faults of `parts` one after the other; what fired, after how many seconds.

    `shorten` divides the long waits of the rules; the dashboard is drawn to the folder `pictures` after `DRAWN` parts.
    """
    with World(SETTINGS, say, observe=True) as world:
        watch = Prometheus(f"http://127.0.0.1:{world.topology.monitoring.prometheus_port}", say)
        if shorten > 1:
            _shorten(world, shorten)
        cause: dict[str, Callable[[], None]] = {
            "healthy": lambda: _nothing(world, watch, healthy),
            "worker": lambda: _with_a_worker(world, watch),
            "no-worker": lambda: _without_a_worker(world, watch),
            "stores": lambda: _without_stores(world, watch),
            "slow-cache": lambda: _with_a_slow_cache(world, watch),
            "stuck": lambda: _with_a_stuck_query(world, watch),
            "disk": lambda: _without_room_for_a_snapshot(world, watch),
            "limits": lambda: _with_queries_at_their_limit(world, watch),
            "after": lambda: _load(world, healthy),
        }
        for part in parts:
            world.log_in_again()
            began = time.time()
            cause[part]()
            if pictures and part in DRAWN:
                draw(world.topology, watch.url, (began, time.time()), DRAWN[part], pictures / f"dashboard-{part}.png")
        return watch.checks


def _shorten(world: World, factor: int) -> None:
    """Have the alerts of the running Prometheus that wait for long wait for a part of it."""
    path = observing.folder_of(world.state) / "rules.yaml"
    content = yaml.safe_load(path.read_text())
    for rule in (rule for group in content["groups"] for rule in group["rules"]):
        minutes = int(str(rule.get("for", "0m")).removesuffix("m"))
        if minutes >= LONG_MINUTES:
            rule["for"] = f"{60 * minutes // factor}s"
            world.say(f"{rule['alert']} waits for {rule['for']} instead of {minutes}m")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    world.signal("prometheus", signal.SIGHUP)


def _load(world: World, seconds: float) -> None:
    """Load for so long."""
    with Load(world, clients=4, sql=lambda n: f"SELECT {n} AS number", think=1.0):
        time.sleep(seconds)


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


def _with_a_slow_cache(world: World, watch: Prometheus) -> None:
    """The cache's Redis hangs again and again, as one does whose machine swaps."""
    ended = threading.Event()

    def hang() -> None:
        while not ended.is_set():
            world.signal(CACHE, signal.SIGSTOP)
            ended.wait(HANGS)
            world.signal(CACHE, signal.SIGCONT)
            time.sleep(ANSWERS)

    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    try:
        with _background(world, lambda n: f"SELECT {n} AS kept_slowly", clients=8):
            watch.await_alerts(f"the cache's Redis hangs for {HANGS} s again and again", "AsyncResultsBackendSlow")
    finally:
        ended.set()
        thread.join()
    watch.await_silence("the cache's Redis answers again", "AsyncResultsBackendSlow")


def _with_a_stuck_query(world: World, watch: Prometheus) -> None:
    """Someone's transaction holds the row of a query that has run for too long, so that nobody can end it."""
    with world.client() as client:
        query = client.submit("SELECT 1 AS ended", world.database_id)
        client.wait(query)
    longest = world.topology.longest_time_limit + world.topology.resilience.final_state_seconds
    began = f"extract(epoch FROM now()) * 1000 - {1000 * (longest + 60)}"
    times = f"start_time = {began}, start_running_time = {began}, end_time = NULL"
    world.sql(f"UPDATE query SET status = 'running', {times} WHERE id = {query.id}")
    hold = f"BEGIN; SELECT id FROM query WHERE id = {query.id} FOR UPDATE; SELECT pg_sleep({PATIENCE}) AS stuck_holder"
    # It ends with an error when its statement is cancelled.
    holder = threading.Thread(target=_held, args=(world, hold), daemon=True)
    holder.start()
    watch.await_alerts("someone's transaction holds the row of a query", "AsyncQueryOlderThanItsLimit")
    holders = "FROM pg_stat_activity WHERE query LIKE '%stuck_holder%' AND pid <> pg_backend_pid()"
    world.sql(f"SELECT pg_cancel_backend(pid) {holders}")
    watch.await_silence("it gives the row back", "AsyncQueryOlderThanItsLimit")


def _held(world: World, statement: str) -> None:
    with suppress(Exception):
        world.sql(statement)


def _without_room_for_a_snapshot(world: World, watch: Prometheus) -> None:
    """Where the broker's snapshot goes there is a folder. From its first failure on the broker refuses what is written."""
    broker = world.redis("broker")
    said = broker.config_get("dir", "dbfilename")
    snapshot = Path(said["dir"]) / said["dbfilename"]
    kept = snapshot.with_suffix(".kept")
    if snapshot.exists():
        snapshot.rename(kept)
    (snapshot / "in the way").mkdir(parents=True)
    broker.bgsave()
    watch.await_alerts("the broker cannot write its snapshot", "AsyncBrokerCannotSave")
    (snapshot / "in the way").rmdir()
    snapshot.rmdir()
    if kept.exists():
        kept.rename(snapshot)
    broker.bgsave()
    watch.await_silence("it can", "AsyncBrokerCannotSave")


def _with_queries_at_their_limit(world: World, watch: Prometheus) -> None:
    """More queries than the worker can take, each as long as its database allows; and some that nobody has any more."""
    ended = "SELECT id FROM query WHERE status = 'success' AND extra_json LIKE '%superset_async_task%' ORDER BY id DESC"
    world.sql(f"UPDATE query SET status = 'running', end_time = NULL WHERE id IN ({ended} LIMIT {LOST})")
    with _background(world, lambda n: f"SELECT wait_seconds(60, {n})", clients=MAX_QUEUED + 5):
        watch.await_alerts(
            f"every query reaches its limit, there are too many, and {LOST} are lost",
            "AsyncQueriesEndBadly",
            "AsyncScalerAtMaximum",
        )
    broker = world.redis("broker")
    # They would all reach it, one after the other.
    broker.delete("default")
    watch.await_silence("nobody submits any more", "AsyncScalerAtMaximum")


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

    # They share one log-in: so many at once would be refused.
    world.client().close()
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
    parser.add_argument(
        "--shorten", type=int, default=1, help="divide the waits of alerts that wait for five minutes or longer"
    )
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of the dashboard")
    # argparse checks the empty list too.
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which faults; default: all")
    arguments = parser.parse_args()
    checks = run(
        healthy=arguments.healthy,
        parts=arguments.parts or PARTS,
        shorten=arguments.shorten,
        pictures=arguments.pictures,
    )
    show(checks)
    return 0 if all(check.held for check in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
