"""Sharing a worker: no queue beyond its bound, none starved by its equals; with kombu and a real broker too."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import binaries
from runtime.tenants.fairness import Turns, shares_of
from tests.runtime.conftest import PROJECT, Services, until
from tests.runtime.stacks import topology
from topology import commands
from topology.model import Share
from topology.settings.tenants import Priority

QUEUES = ("a", "b", "c", "d")
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
shares = st.lists(st.sampled_from(QUEUES), unique=True).flatmap(
    lambda queues: st.tuples(
        *(
            st.builds(Share, queue=st.just(queue), in_flight=st.integers(1, 3), priority=st.sampled_from(PRIORITIES))
            for queue in queues
        )
    )
)
#: What a worker goes through: a queue's message comes, one of its tasks ends, or the worker asks.
steps = st.lists(st.tuples(st.sampled_from(["message", "end", "ask"]), st.sampled_from(QUEUES)), max_size=60)


@given(shares, steps)
def test_a_queue_at_its_bound_is_never_asked_and_whatever_is_below_it_is(
    bounds: Sequence[Share], happens: list[tuple[str, str]]
) -> None:
    turns, limits = Turns(bounds), {share.queue: share.in_flight for share in bounds}
    turns.update(QUEUES)
    waiting, running = Counter[str](), Counter[str]()
    for what, queue in happens:
        if what == "message":
            waiting[queue] += 1
        elif what == "end" and running[queue]:
            running[queue] -= 1
        asked = turns.eligible(running)
        assert sorted(asked) == [one for one in QUEUES if running[one] < limits.get(one, 1000)]
        # The broker answers with the first that has a message.
        served = next((one for one in asked if waiting[one]), None)
        if what == "ask" and served:
            waiting[served] -= 1
            running[turns.rotate(served)] += 1
    assert all(count <= limits.get(queue, 1000) for queue, count in running.items())


@given(shares, st.lists(st.sampled_from(QUEUES), max_size=20))
def test_among_equals_whoever_waits_is_served_before_anyone_twice(bounds: Sequence[Share], before: list[str]) -> None:
    turns = Turns(bounds)
    turns.update(QUEUES)
    for queue in before:
        turns.rotate(queue)
    ranks = {share.queue: PRIORITIES.index(share.priority) for share in bounds}
    first = min(ranks.get(queue, 1) for queue in QUEUES)
    best = {queue for queue in QUEUES if ranks.get(queue, 1) == first}
    # Each has messages without end, and none reaches its bound: the best take turns.
    served = [turns.rotate(turns.eligible({})[0]) for _ in range(len(best))]
    assert set(served) == best


@given(st.lists(st.frozensets(st.sampled_from(QUEUES)), max_size=6))
def test_the_queues_of_now_are_asked_each_once(changes: list[frozenset[str]]) -> None:
    turns = Turns(())
    for queues in changes:
        turns.update(queues)
        asked = turns.eligible({})
        assert sorted(asked) == sorted(queues)


def test_one_local_worker_has_the_shares_of_all_that_it_stands_for() -> None:
    plan = topology("multi-tenant", tenants={"t1": {"users": ["x"], "pool": "shared", "in_flight": 2, "priority": "high"}})
    pool = plan.pool("default")
    assert [(share.queue, share.in_flight) for share in shares_of(pool, 5)] == [("default", 15), ("t1", 10)]
    assert shares_of(pool) == pool.shares


def run(services: Services, folder: Path, arguments: str, **env: str) -> list[dict[str, Any]]:
    """When each task ran, as a worker of two tenants' shared pool with four children had them."""
    plan = topology(
        "multi-tenant",
        platform="local",
        local={"web_port": 8088, "redis_port": services.redis_port, "postgres_port": services.postgres_port},
        tenants={name: {"users": [name], "pool": "shared"} for name in ("tenant-a", "tenant-b")},
        workers={"min_workers": 1, "max_workers": 1},
    )
    runs = folder / "runs"
    environment = services.process_environment(plan, "worker", "fairness") | {"RUNS": str(runs)} | env
    module = "tests.runtime.tenants.fair_process"
    submit = [str(binaries.superset_python()), "-m", module, *arguments.split()]
    done = subprocess.run(submit, env=environment, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [word.replace(commands.CELERY_APP, f"{module}:app") for word in commands.worker(plan.pool("default"))]
    count = sum(map(int, arguments.split()[1::3]))
    log = folder / "worker.log"
    with log.open("w") as output:
        worker = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=output, stderr=output)
        try:
            # Here a question that nobody ends takes 30 s: at its bound of 3, a flood of 20 would need three minutes.
            until(lambda: runs.exists() and runs.read_text().count("\n") == count, 120, f"{count} tasks, see {log}")
        finally:
            worker.kill()
            worker.wait(timeout=30)
    return [json.loads(line) for line in runs.read_text().splitlines()]


def most_at_once(runs: list[dict[str, Any]]) -> int:
    changes = sorted([(run["began"], 1) for run in runs] + [(run["ended"], -1) for run in runs])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


@pytest.mark.superset
def test_in_a_real_worker_a_flood_leaves_a_child_for_the_others_and_keeps_the_rest_busy(
    services: Services, tmp_path: Path
) -> None:
    found = run(services, tmp_path, "tenant-a 20 1 tenant-b 2 1 default 2 1")
    by_queue = {queue: [one for one in found if one["queue"] == queue] for queue in ("tenant-a", "tenant-b", "default")}
    assert {queue: len(ran) for queue, ran in by_queue.items()} == {"tenant-a": 20, "tenant-b": 2, "default": 2}
    assert most_at_once(by_queue["tenant-a"]) == 3
    # The others came last, and were done while most of the flood still waited.
    last = max(one["ended"] for queue in ("tenant-b", "default") for one in by_queue[queue])
    assert sum(one["began"] > last for one in by_queue["tenant-a"]) > 9
