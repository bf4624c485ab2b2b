"""Stores and workers freeze, fill up and are lost under load: what each query's user was told is what happened to it.

Half of the queries insert their number into a table, half only read. After each fault every query's end is compared with the
rows that it wrote. `python -m bench.scenarios.told` runs it alone; `… told cache_frozen broker_full` only some of it.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from bench.report import Check, show
from bench.world import Load, World
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.supervision import wait_until
from runtime.queries import query_tasks

CLIENTS = 16
#: The bound within which every query must be final once its fault is over.
BOUND = 60.0
#: Enterprise's stores (a server for the broker, one for caches) and two workers, in a size for one machine.
SETTINGS: dict[str, Any] = {
    "topology": "enterprise",
    "web": {"processes": 2, "threads": 20, "min_replicas": 1, "max_replicas": 1},
    "workers": {"concurrency": 4, "min_workers": 1, "max_workers": 1, "scaling": None},
    "pools": {"default": {"queues": ["default"]}, "second": {"queues": ["default"]}},
    "databases": {SAMPLE_DATABASE: {"sample": True, "allow_dml": True}},
    # All clients are one user.
    "resilience": {"max_in_flight_per_user": 10_000},
}
TABLES = "CREATE TABLE IF NOT EXISTS runs (number bigint, at timestamptz DEFAULT clock_timestamp())"
#: Words of ends that leave open whether a write stands.
OPEN_ENDED = ("may or may not have been committed", "may stand", "look first at what it has written", "It may change data")
#: What no user shall read: addresses, errors of the system and of drivers.
INTERNALS = re.compile(r"\d+\.\d+\.\d+\.\d+|\bErrno\b|\bError \d+|base/\d|psycopg2|reading from socket|server closed")


def statement(number: int) -> str:
    """The query with this number, of half a second to eight: the odd ones write."""
    waits = f"wait_seconds({0.5 + number * 7 % 16 / 2}, {number})"
    return f"INSERT INTO runs (number) SELECT {waits}" if number % 2 else f"SELECT {waits} AS number"


@dataclass(frozen=True)
class Ended:
    """How one query ended: its number, state and error, and how many rows it has written."""

    number: int
    status: str
    error: str
    rows: int


def untrue(end: Ended) -> str | None:
    """What is wrong with what was said of a query; None where it is what happened."""
    if end.rows > 1:
        return "written twice"
    if not end.number % 2:
        return None
    if end.status == "success" or end.error == query_tasks.COMMITTED_NOT_KEPT:
        return None if end.rows == 1 else "said to be written, and is not"
    if end.rows and not any(words in end.error for words in OPEN_ENDED):
        return "written, and nobody was told"
    return None


def _ended(world: World, first: int, last: int) -> list[Ended]:
    counted = world.sql("SELECT number, count(*) FROM runs GROUP BY number", SAMPLE_DATABASE)
    rows = {int(number): int(count) for number, _, count in (line.partition("|") for line in counted.splitlines())}
    asked = world.sql(
        "SELECT substring(sql from 'wait_seconds\\([0-9.]+, (\\d+)\\)'), status, "
        "translate(COALESCE(error_message, ''), E'\\n|', '  ') FROM query WHERE sql LIKE '%wait_seconds(%'"
    )
    parts = [line.split("|") for line in asked.splitlines()]
    ends = [Ended(int(number), status, error, rows.get(int(number), 0)) for number, status, error in parts if number]
    return [end for end in ends if first < end.number <= last]


def audit(fault: str, ends: list[Ended], opened: int) -> list[Check]:
    """What was told against what happened, for the queries of one fault."""
    writes = [end for end in ends if end.number % 2]
    wrong = Counter(filter(None, map(untrue, ends)))
    leaks = [end.error for end in ends if INTERNALS.search(end.error)]
    states = ", ".join(f"{count} {status}" for status, count in sorted(Counter(end.status for end in ends).items()))
    stand = sum(end.rows for end in writes if end.status != "success")
    failed = sum(end.status == "failed" for end in ends if not end.number % 2)
    return [
        Check(fault, "every query ends within 60 s", f"{len(ends)} queries ({states}), {opened} open", held=not opened),
        Check(
            fault,
            "what is said of a write is what happened",
            f"{len(writes)} writes, {sum(end.rows for end in writes)} rows; {stand} of writes without success, each told so; "
            + (", ".join(f"{count} {what}" for what, count in wrong.items()) or "none untrue"),
            held=not wrong and bool(writes),
        ),
        Check(
            fault,
            "no address and no driver's words",
            f"{len(leaks)} of {len(ends)}{': ' + leaks[0][:120] if leaks else ''}",
            not leaks,
        ),
        Check(fault, "reads that failed", f"{failed} of {len(ends) - len(writes)}", held=None),
    ]


def _signalled(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _frozen(world: World, name: str, seconds: float) -> None:
    """A process stands still with its children, as on a node without processor or memory, and goes on."""
    parent = psutil.Process(world.pid(name))
    family = [parent, *parent.children(recursive=True)]
    _signalled(family, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        _signalled(family, signal.SIGCONT)


def _refusing(world: World, setting: str, value: int, seconds: float) -> None:
    """The broker refuses writes by this setting, and takes them again."""
    operator = world.redis()
    usual = operator.config_get(setting)[setting]
    operator.config_set(setting, value)
    try:
        time.sleep(seconds)
    finally:
        operator.config_set(setting, usual)


def _sessions_cut(world: World) -> None:
    for _ in range(5):
        world.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'superset' AND pid <> pg_backend_pid()"
        )
        time.sleep(2)


#: Of each fault: its words, and what causes it and returns when it is over.
FAULTS: dict[str, tuple[str, Callable[[World], None]]] = {
    "cache_frozen": ("the caches' Redis frozen for 20 s", lambda world: _frozen(world, "redis-cache", 20)),
    "cache_down": ("the caches' Redis down for 15 s", lambda world: world.kill_for("redis-cache", 15)),
    "sessions_cut": ("all sessions with the metadata database cut, five times in 10 s", _sessions_cut),
    "postgres_killed": ("PostgreSQL killed, started again after 0.5 s", lambda world: world.kill_for("postgres", 0.5)),
    "broker_full": ("the broker at maxmemory for 75 s", lambda world: _refusing(world, "maxmemory", 1, 75)),
    "broker_refuses": (
        "the broker refuses every write for 20 s (NOREPLICAS, as MISCONF with a full disk)",
        lambda world: _refusing(world, "min-replicas-to-write", 1, 20),
    ),
    "worker_frozen": ("a worker of two frozen for 90 s", lambda world: _frozen(world, "worker-second", 90)),
}


def run(say: Callable[[str], None] = print, parts: tuple[str, ...] = tuple(FAULTS)) -> list[Check]:
    """Every check of these faults, one after the other, on one platform."""
    checks: list[Check] = []
    with World(SETTINGS, say) as world:
        world.sql(TABLES, SAMPLE_DATABASE, user=SAMPLE_ROLE)
        workers = {name: world.pid(name) for name in ("worker-default", "worker-second")}
        last = 0
        for part in parts:
            fault, cause = FAULTS[part]
            first = last
            world.log_in_again()
            with Load(world, CLIENTS, lambda n, first=first: statement(first + n), think=0.5) as load:
                time.sleep(12)
                cause(world)
                time.sleep(12)
            last = first + len(load.outcomes)
            wait_until(lambda: _open(world) == 0, BOUND, pause=1)
            # What was said to be lost may be written later.
            time.sleep(10)
            checks += audit(fault, _ended(world, first, last), _open(world))
            say(f"{part}: {dict(load.counts())}")
        ended = [name for name, pid in workers.items() if world.pid(name) != pid]
    checks.append(Check("all of these", "no worker ends", f"ended: {', '.join(ended) or 'none'}", held=not ended))
    return checks


def _open(world: World) -> int:
    return int(world.sql("SELECT count(*) FROM query WHERE status NOT IN ('success', 'failed', 'stopped', 'timed_out')"))


if __name__ == "__main__":
    show(run(parts=tuple(sys.argv[1:]) or tuple(FAULTS)))
