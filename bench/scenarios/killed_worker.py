"""Workers die in mid-query, again and again, under load: every query ends, and nothing is written twice.

Half of the queries insert their number into a table, half only read; most kills are of the child that executes one, every tenth
of a worker with all its children. `python -m bench.scenarios.killed_worker --kills 100` runs it alone.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from bench.report import Check, percentiles, show
from bench.world import Load, World
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.supervision import wait_until

KILLS, CLIENTS = 100, 50
#: One of so many kills is of a whole worker.
WORKER_EVERY = 10
#: Seconds that one query takes, and the bound within which each must be final after a kill.
SECONDS, BOUND = 1.5, 60.0
#: The longest pause between kills, and how long the queue may take to empty after the last.
PAUSE, DRAIN = 4.0, 240.0
#: Two workers, as where one node goes and the others stay.
WORKERS = ("worker-default", "worker-second")
SETTINGS: dict[str, Any] = {
    "topology": "minimal",
    "celery": {"acks_late": True},
    "workers": {"concurrency": 2, "min_workers": 1, "max_workers": 1, "prefetch_multiplier": 1},
    "pools": {"default": {"queues": ["default"]}, "second": {"queues": ["default"]}},
    "databases": {SAMPLE_DATABASE: {"sample": True, "allow_dml": True}},
}
#: A query of the view is one that only reads, as far as its text says.
TABLES = f"""
CREATE TABLE IF NOT EXISTS runs (number bigint, at timestamptz DEFAULT clock_timestamp());
CREATE OR REPLACE VIEW slow AS SELECT wait_seconds({SECONDS}) AS waited;
"""


@dataclass(frozen=True)
class Kill:
    """One victim: the number of the query that it executed, and when it died (Unix time)."""

    number: int
    at: float


def statement(number: int) -> str:
    """The query with this number: the odd ones write."""
    if number % 2:
        return f"INSERT INTO runs (number) SELECT {number} FROM slow"
    return f"SELECT {number} AS number, waited FROM slow"


class Killer:
    """Kills a child, or all of a worker, that executes a query."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self.kills: list[Kill] = []
        self.deaths = 0

    def run(self, most: int, ended: threading.Event) -> None:
        """Kill `most` times, or until `ended`."""
        while self.deaths < most and not ended.is_set():
            # Meets queries anywhere between begin and end, and leaves the children time to be replaced.
            time.sleep(random.uniform(0, PAUSE))
            victims = self._executing()
            if not victims:
                continue
            if (self.deaths + 1) % WORKER_EVERY == 0:
                name = random.choice(WORKERS)
                mine = {child.pid for child in self._children(name)}
                self._world.kill(name)
                now = time.time()
                self.kills += [Kill(number, now) for number, process in victims if process.pid in mine]
            else:
                number, process = random.choice(victims)
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
                self.kills.append(Kill(number, time.time()))
            self.deaths += 1
            if self.deaths % 10 == 0:
                self._say(f"{self.deaths} kills")

    def _executing(self) -> list[tuple[int, psutil.Process]]:
        """Numbers of the queries that are in the database, and the children whose they are, by the ports of both."""
        rows = self._world.sql(
            "SELECT client_port, substring(query from '(?:SELECT|VALUES)\\s+(\\d+)') FROM pg_stat_activity "
            f"WHERE datname = '{SAMPLE_DATABASE}' AND state = 'active' AND query LIKE '%slow%' AND pid <> pg_backend_pid()"
        )
        ports = {int(port): int(number) for port, _, number in (row.partition("|") for row in rows.splitlines()) if number}
        found: list[tuple[int, psutil.Process]] = []
        for child in (child for name in WORKERS for child in self._children(name)):
            try:
                mine = {it.laddr.port for it in child.net_connections() if it.laddr}
            except psutil.NoSuchProcess:
                continue
            found += [(ports[port], child) for port in mine & ports.keys()]
        return found

    def _children(self, name: str) -> list[psutil.Process]:
        try:
            return self._world.children(name)
        except psutil.NoSuchProcess:
            return []


def final_after(world: World, kills: list[Kill]) -> list[float]:
    """Seconds from each query's last kill to its end, for those that were not final when their process died."""
    last = {kill.number: kill.at for kill in kills}
    rows = world.sql(
        "SELECT substring(sql from '(?:SELECT) (\\d+)'), end_time / 1000 FROM query WHERE sql LIKE '%FROM slow%' "
        "AND end_time IS NOT NULL"
    )
    ends = {int(number): float(end) for number, _, end in (row.partition("|") for row in rows.splitlines()) if number}
    return [ends[number] - at for number, at in last.items() if number in ends and ends[number] > at]


def run(say: Callable[[str], None] = print, kills: int = KILLS, clients: int = CLIENTS) -> list[Check]:
    """Kill `kills` times under the load of `clients` users; what held."""
    fault = f"kill -9 in mid-query, {kills} times, {clients} clients"
    with World(SETTINGS, say) as world:
        world.sql(TABLES, SAMPLE_DATABASE, user=SAMPLE_ROLE)
        killer, ended = Killer(world, say), threading.Event()
        with Load(world, clients=clients, sql=statement, think=0.5) as load:
            killer.run(kills, ended)
        say(f"outcomes as seen by clients: {dict(load.counts())}")
        wait_until(lambda: _open(world) == 0, DRAIN, pause=1)
        opened = _open(world)
        twice = int(
            world.sql(
                "SELECT count(*) FROM (SELECT number FROM runs GROUP BY number HAVING count(*) > 1) t", SAMPLE_DATABASE
            )
        )
        missing = _said_success_without_row(world)
        total = int(world.sql("SELECT count(*) FROM query"))
        states = world.sql("SELECT status || ' ' || count(*) FROM query GROUP BY status ORDER BY 1").splitlines()
        tried = world.sql(
            "SELECT COALESCE(outcome, 'open') || ' ' || count(*) FROM superset_async_executions GROUP BY outcome ORDER BY 1"
        ).splitlines()
        seconds = final_after(world, killer.kills)
    say(f"queries: {', '.join(states)}; attempts: {', '.join(tried)}")
    unanswered = load.counts()["unanswered"]
    return [
        Check(fault, "every query ends", f"{total} queries ({', '.join(states)}), {opened} open", held=not opened),
        Check(
            fault, "every client is answered", f"{len(load.outcomes)} submissions, {unanswered} unanswered", not unanswered
        ),
        Check(fault, "0 double writes", f"{twice} numbers written twice", held=twice == 0),
        Check(fault, "no success without its row", f"{missing} rows missing", held=missing == 0),
        Check(fault, f"final within {BOUND:.0f} s of the kill", percentiles(seconds), max(seconds, default=0) <= BOUND),
    ]


def _open(world: World) -> int:
    return int(world.sql("SELECT count(*) FROM query WHERE status NOT IN ('success', 'failed', 'stopped', 'timed_out')"))


def _said_success_without_row(world: World) -> int:
    """Writes that Superset calls a success and that are not in the table."""
    written = set(world.sql("SELECT DISTINCT number FROM runs", SAMPLE_DATABASE).split())
    said = set(
        world.sql(
            "SELECT substring(sql from 'SELECT (\\d+)') FROM query WHERE status = 'success' AND sql LIKE 'INSERT%'"
        ).split()
    )
    return len(said - written)


def main() -> int:
    """Run the scenario alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    checks = run(kills=arguments.kills, clients=arguments.clients)
    show(checks)
    return 0 if all(check.held for check in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
