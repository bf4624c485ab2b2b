"""The broker dies, fills up, or fails over, while 50 clients submit: what was accepted ends, and what is refused says so.

`python -m bench.scenarios.broker` runs it alone; `… broker killed full failover` only some of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.exceptions import OutOfMemoryError

from bench.report import Check, percentiles, show
from bench.world import Load, Outcome, World
from client.errors import SubmissionRefusedError

PROJECT = Path(__file__).resolve().parents[2]
CLIENTS = 50
#: Seconds that the broker is away, and that a query takes.
AWAY, QUERY = 5.0, 0.3
BACKLOG = 100
#: Enterprise's broker (AOF, noeviction, a server of its own) and workers (late acknowledgement), in a size for one machine.
SETTINGS: dict[str, Any] = {
    "topology": "enterprise",
    "web": {"processes": 2, "threads": 20, "min_replicas": 1, "max_replicas": 1},
    "workers": {"concurrency": 4, "min_workers": 1, "max_workers": 1, "scaling": None},
    # All clients are one user.
    "resilience": {"max_in_flight_per_user": 10_000},
}
#: In a network and mounts of its own, where pods' names are loopback addresses.
ISOLATED = ("unshare", "--user", "--map-root-user", "--mount", "--net", "--")


def accepted(outcomes: list[Outcome]) -> list[Outcome]:
    """The queries that Superset took."""
    return [outcome for outcome in outcomes if outcome.query_id is not None]


def messages(outcomes: list[Outcome]) -> str:
    """The different things that clients read, shortened."""
    found = sorted({outcome.message.partition(".")[0][:90] for outcome in outcomes})
    return "; ".join(found[:3]) or "none"


def open_queries(world: World) -> int:
    """Rows that have not ended."""
    return int(world.sql("SELECT count(*) FROM query WHERE status IN ('pending', 'running')"))


def killed(world: World) -> list[Check]:
    """kill -9 of the AOF broker under load, with queries queued, prefetched and running; back after five seconds."""
    fault = f"kill -9 of the broker, {AWAY:.0f} s away, {CLIENTS} clients"
    with Load(world, clients=CLIENTS, sql=lambda n: f"SELECT wait_seconds({QUERY}, {n})", think=0.5) as load:
        time.sleep(15)
        held = world.redis().hlen("unacked"), sum(world.redis().llen(queue) for queue in world.topology.celery.queues)
        at = time.time()
        world.kill_for("redis-broker", AWAY)
        back = time.time()
        time.sleep(30)
    taken = accepted(load.outcomes)
    lost = [outcome for outcome in taken if outcome.kind != "success"]
    refused = [outcome for outcome in load.outcomes if outcome.query_id is None]
    ended = world.sql(
        f"SELECT COALESCE(min(end_time) / 1000 - {back}, -1), COALESCE(max(end_time) FILTER (WHERE start_time / 1000 < {at}) "
        f"/ 1000 - {back}, 0) FROM query WHERE end_time / 1000 > {back}"
    )
    first, last = (float(part) for part in ended.split("|"))
    twice = world.sql("SELECT count(*) FROM superset_async_executions WHERE attempt > 1")
    return [
        Check(
            fault,
            "no accepted query is lost, prefetched and queued ones included",
            f"{len(taken)} accepted, {len(lost)} lost ({messages(lost)}); at the kill {held[0]} with workers, {held[1]} queued",
            held=not lost and bool(taken),
        ),
        Check(fault, "what is not taken is refused in words", f"{len(refused)}: {messages(refused)}", held=None),
        Check(
            fault,
            "they go on, all within 60 s",
            f"first end {first:.1f} s after it was back, last of those from before {last:.1f} s; {twice} executed again",
            held=first >= 0 and last < 60,
        ),
        Check(fault, "nothing stays open", f"{open_queries(world)} open", held=open_queries(world) == 0),
    ]


def _filled(operator: Any, first: int) -> list[str]:
    """The names of values that take what memory is left: ever smaller, until not even a message fits."""
    names: list[str] = []
    for size in (100_000, 10_000, 1_000, 100):
        for _ in range(40):
            name = f"filler:{first + len(names)}"
            try:
                operator.set(name, b"x" * size)
            except OutOfMemoryError:
                break
            names.append(name)
    return names


def full(world: World, policy: str) -> list[Check]:
    """The broker's memory is full behind a backlog that no worker takes; then it has room and a worker again."""
    fault = f"broker at maxmemory, {policy}"
    operator = world.redis()
    compared = policy != "noeviction"
    usual = operator.config_get("maxmemory", "maxmemory-policy")
    queue = world.topology.celery.default_queue
    world.stop("worker-default")
    client = world.client()
    refusals: list[str] = []
    seconds: list[float] = []
    handles = [client.submit(f"SELECT {n}", world.database_id) for n in range(BACKLOG)]
    before = operator.llen(queue)
    operator.config_set("maxmemory-policy", policy)
    operator.config_set("maxmemory", int(operator.info("memory")["used_memory"]) + 2**20)
    fillers: list[str] = []
    for number in range(10):
        if not compared or not fillers:
            # What others let go of meanwhile is taken too.
            fillers += _filled(operator, len(fillers))
        began = time.monotonic()
        try:
            handles.append(client.submit(f"SELECT {BACKLOG + number}", world.database_id))
        except SubmissionRefusedError as error:
            refusals.append(str(error))
        seconds.append(time.monotonic() - began)
    during = operator.llen(queue)
    operator.config_set("maxmemory", int(usual["maxmemory"]))
    operator.config_set("maxmemory-policy", usual["maxmemory-policy"])
    operator.delete(*fillers)
    world.supervisor.start_process("worker-default")
    states: dict[str, int] = {}
    began = time.monotonic()
    for handle in handles:
        try:
            state = client.wait(handle, timeout=180, pending_timeout=None).state.value
        except Exception as error:
            state = f"{type(error).__name__}: {str(error).partition('.')[0][-80:]}"
        states[state] = states.get(state, 0) + 1
    ended = time.monotonic() - began
    client.close()
    return [
        Check(
            fault,
            "what shipped stacks do, for comparison" if compared else "the queue is intact",
            f"{before} waited before it was full, {during} then",
            held=None if compared else during >= before,
        ),
        Check(
            fault,
            "submissions are refused clearly" if not compared else "loss is silent at submission",
            f"{len(refusals)} of 10 refused, {percentiles(seconds)}: {refusals[0][:110] if refusals else ''}",
            held=None if compared else len(refusals) == 10,
        ),
        Check(
            fault,
            "what was evicted is sent again and answered" if compared else "every accepted query is answered",
            f"{states} after {ended:.0f} s",
            held=open_queries(world) == 0 and set(states) == {"success"},
        ),
    ]


def failover() -> list[Check]:
    """The primary is killed under Sentinel while messages are sent, once also with a replica in its first sync."""
    if any(shutil.which(program) is None for program in ("unshare", "mount", "ip")):
        return [
            Check("primary killed under Sentinel", "needs a network namespace", "unshare, mount or ip not found", held=None)
        ]
    with tempfile.TemporaryDirectory(prefix="superset-async-sentinels-") as folder:
        done = subprocess.run(
            [*ISOLATED, sys.executable, "-m", "bench.scenarios.sentinels", f"{folder}/world"],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            timeout=600,
        )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"fault"')]
    if done.returncode or not found:
        raise RuntimeError(f"{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return [
        Check(
            it["fault"],
            "no accepted message is lost",
            f"{it['accepted']} accepted, {it['lost']} lost, {it['refused']} refused; writable again after {it['seconds']:.1f} s",
            held=it["lost"] == 0 and it["accepted"] > 0,
        )
        for it in found
    ]


def run(say: Callable[[str], None] = print, parts: tuple[str, ...] = ("killed", "full", "failover")) -> list[Check]:
    """Every check of these parts."""
    checks: list[Check] = []
    if {"killed", "full"} & set(parts):
        with World(SETTINGS, say) as world:
            if "killed" in parts:
                checks += killed(world)
            if "full" in parts:
                checks += full(world, "noeviction")
                checks += full(world, "allkeys-lru")
    if "failover" in parts:
        checks += failover()
    return checks


if __name__ == "__main__":
    show(run(parts=tuple(sys.argv[1:]) or ("killed", "full", "failover")))
