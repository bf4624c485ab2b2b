"""A worker with running and prefetched queries is told to stop, as at every scale-in and roll-out: all finish, or run elsewhere.

Two workers share a queue, under load; each is stopped with SIGTERM in turn, and comes back.
`python -m bench.scenarios.scale_in` runs it alone.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from typing import Any

from bench.report import Check, show
from bench.scenarios.killed_worker import TABLES, statement
from bench.world import Load, World
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.supervision import wait_until

STOPS, CLIENTS = 6, 30
WORKERS = ("worker-default", "worker-second")
SETTINGS: dict[str, Any] = {
    "topology": "minimal",
    "celery": {"acks_late": True},
    # More is prefetched than can run: what a stopping worker has to give back.
    "workers": {"concurrency": 3, "min_workers": 1, "max_workers": 1, "prefetch_multiplier": 4},
    "pools": {"default": {"queues": ["default"]}, "second": {"queues": ["default"]}},
    "databases": {SAMPLE_DATABASE: {"sample": True, "allow_dml": True}},
}


def run(say: Callable[[str], None] = print, stops: int = STOPS, clients: int = CLIENTS) -> list[Check]:
    """Stop a worker `stops` times under the load of `clients` users; what held."""
    fault = f"SIGTERM of a worker with running queries, {stops} times, {clients} clients"
    stopped: list[float] = []
    busy = 0
    with World(SETTINGS, say) as world:
        world.sql(TABLES, SAMPLE_DATABASE, user=SAMPLE_ROLE)
        with Load(world, clients=clients, sql=statement, think=0.2) as load:
            for turn in range(stops):
                name = WORKERS[turn % len(WORKERS)]
                wait_until(lambda: _executing(world) > 2, 60)
                busy += _executing(world) > 2
                began, pid = time.monotonic(), world.pid(name)
                world.signal(name, signal.SIGTERM)
                wait_until(lambda gone=pid, who=name: world.pid(who) != gone, 120)
                stopped.append(time.monotonic() - began)
                times = turn // len(WORKERS) + 2
                wait_until(lambda who=name, least=times: world.log(who).count(" ready.") >= least, 120)
                say(f"{name} stopped in {stopped[-1]:.1f} s")
        counts = dict(load.counts())
        states = world.sql("SELECT status || ' ' || count(*) FROM query GROUP BY status ORDER BY 1").splitlines()
        tried = world.sql(
            "SELECT COALESCE(outcome, 'open') || ' ' || count(*) FROM superset_async_executions GROUP BY outcome ORDER BY 1"
        ).splitlines()
        again = int(world.sql("SELECT count(*) FROM superset_async_executions WHERE attempt > 1"))
        twice = int(
            world.sql(
                "SELECT count(*) FROM (SELECT number FROM runs GROUP BY number HAVING count(*) > 1) t", SAMPLE_DATABASE
            )
        )
    total = len(load.outcomes)
    return [
        Check(fault, "queries run when it is stopped", f"{busy} of {stops} times", held=busy == stops),
        Check(
            fault, "all finish, or run elsewhere", f"{total} submissions: {counts}", held=counts.get("success") == total > 0
        ),
        Check(fault, "nothing is lost or written twice", f"{', '.join(states)}; {twice} twice", held=twice == 0),
        Check(fault, "none is executed again", f"attempts: {', '.join(tried)}; {again} beyond the first", held=again == 0),
        Check(fault, "seconds to stop", ", ".join(f"{it:.1f}" for it in stopped), held=None),
    ]


def _executing(world: World) -> int:
    return int(
        world.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{SAMPLE_DATABASE}' AND query LIKE '%slow%' "
                  "AND state = 'active' AND pid <> pg_backend_pid()")
    )  # fmt: skip


def main() -> int:
    """Run the scenario alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=STOPS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    checks = run(stops=arguments.stops, clients=arguments.clients)
    show(checks)
    return 1 if any(check.held is False for check in checks) else 0


if __name__ == "__main__":
    raise SystemExit(main())
