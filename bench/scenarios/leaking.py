"""Children that leak 5 MB a task: each is replaced at its bound, no task is lost, and the worker's memory stays flat.

The leak is real: a handler of Celery's, imported with the worker, keeps 5 MB of each task for ever.
`python -m bench.scenarios.leaking` runs it alone.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import psutil

from bench.report import Check, show
from bench.world import Load, World
from local import processes
from local.state import StateFolder
from topology.model import Topology
from topology.own_module import OwnModule

QUERIES, CLIENTS = 400, 20
LEAK_MB = 5
#: Above the size of a child at rest (233 MB at most), so that a child lives for some 15 tasks.
BOUND_KB = 300_000
WORKER = "worker-default"
SETTINGS: dict[str, Any] = {
    "topology": "minimal",
    "celery": {"acks_late": True},
    "workers": {
        "concurrency": 2,
        "min_workers": 1,
        "max_workers": 1,
        "prefetch_multiplier": 1,
        "max_memory_per_child": f"{BOUND_KB}Ki",
    },
}
LEAK = f"""
from celery.signals import task_postrun
kept = []
task_postrun.connect(lambda **_: kept.append(b"x" * {LEAK_MB * 1_000_000}), weak=False)
"""


class Watch:
    """Resident memory of a worker and its children, and how many children it has had, once a second."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ended = threading.Event()
        self.megabytes: list[float] = []
        self.largest_child = 0.0
        self.pids: set[int] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1):
            try:
                children = self._world.children(WORKER)
                sizes = [child.memory_info().rss / 1e6 for child in children]
            except psutil.NoSuchProcess:
                continue
            self.pids |= {child.pid for child in children}
            self.megabytes.append(sum(sizes))
            self.largest_child = max([self.largest_child, *sizes])


def run(say: Callable[[str], None] = print, queries: int = QUERIES, clients: int = CLIENTS) -> list[Check]:
    """Leak through `queries` queries of `clients` users; what held."""
    fault = f"children leak {LEAK_MB} MB a task, {queries} tasks, {clients} clients"
    with _leaking(), World(SETTINGS, say) as world:
        load = Load(world, clients=clients, sql=lambda n: f"SELECT {n} AS number", think=0.1, most=queries)
        with Watch(world) as watch, load:
            load.wait()
        counts = dict(load.counts())
        lost = int(world.sql("SELECT count(*) FROM superset_async_executions WHERE outcome <> 'success' OR attempt > 1"))
    half = len(watch.megabytes) // 2
    first, second = max(watch.megabytes[:half], default=0), max(watch.megabytes[half:], default=0)
    children = len(watch.pids)
    least = LEAK_MB * queries / (BOUND_KB * 1024 / 1e6)
    bound = BOUND_KB * 1024 / 1e6 + 4 * LEAK_MB
    return [
        Check(fault, "children are replaced", f"{children} children for {queries} tasks", held=children > max(2, least)),
        Check(
            fault,
            "no task is lost",
            f"{counts}, {lost} attempts without success",
            counts == {"success": queries} and not lost,
        ),
        Check(
            fault, "no child outgrows its bound", f"{watch.largest_child:.0f} MB of {bound:.0f}", watch.largest_child < bound
        ),
        Check(fault, "memory is flat", f"most in each half: {first:.0f} and {second:.0f} MB", held=second <= first * 1.1),
    ]


@contextmanager
def _leaking() -> Generator[None]:
    """Workers that are started in the block import the leak, by Python's own `sitecustomize`."""
    shipped = processes.superset_environment

    def leaking(
        topology: Topology, folder: StateFolder, secrets: Mapping[str, str], role: str, module: OwnModule | None = None
    ) -> dict[str, str]:
        environment = shipped(topology, folder, secrets, role, module)
        if role == "worker":
            environment["PYTHONPATH"] = f"{leak}{os.pathsep}{environment['PYTHONPATH']}"
        return environment

    with TemporaryDirectory(prefix="superset-async-leak-") as leak:
        (Path(leak) / "sitecustomize.py").write_text(LEAK)
        with mock.patch.object(processes, "superset_environment", leaking):
            yield


def main() -> int:
    """Run the scenario alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    checks = run(queries=arguments.queries, clients=arguments.clients)
    show(checks)
    return 1 if any(check.held is False for check in checks) else 0


if __name__ == "__main__":
    raise SystemExit(main())
