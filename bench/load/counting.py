"""How many SQL statements and Redis commands one query costs, by tier: counted by the servers themselves, not in a timed run.

PostgreSQL logs every statement with the name that its client gave itself (statements on the analytic database are the worker's);
Valkey's MONITOR shows every command with its client's address, which belongs to a process. What an idle platform does in as
long a time is taken away.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
from redis.exceptions import RedisError

from bench.load.measure import tree
from bench.load.sides import Side, SideError

_PREFIX = "bench %a|%d|"
_STATEMENT = re.compile(r"^bench (?P<who>[^|]*)\|(?P<database>[^|]*)\|LOG:  (?:statement|execute [^:]*): ", re.MULTILINE)
_END = "bench-counting-ends"


@dataclass(frozen=True)
class Counts:
    """What happened in `seconds`: statements and commands by tier."""

    seconds: float
    statements: Mapping[str, int]
    commands: Mapping[str, int]


def statements_by_tier(log: str, analytics: str) -> Counter[str]:
    """Statements in lines that PostgreSQL has logged with `_PREFIX`, by the tier that sent them; the benchmark's own are
    left out."""
    found: Counter[str] = Counter()
    for match in _STATEMENT.finditer(log):
        who = match["who"]
        if who == "bench":
            continue
        tier = who.removeprefix("superset-") if who.startswith("superset-") else "worker"
        found[tier if match["database"] != analytics or who else "worker"] += 1
    return found


def tier_of_ports(tiers: Mapping[str, Iterable[int]]) -> dict[int, str]:
    """The tier of each local TCP port that a process of `tiers` is connected from."""
    found: dict[int, str] = {}
    for tier, pids in tiers.items():
        if tier in ("redis", "postgres", "proxy"):
            continue
        for process in tree(pids):
            with suppress(psutil.Error):
                found |= {it.laddr.port: tier for it in process.net_connections("tcp") if it.laddr}
    return found


def per_query(busy: Counts, idle: Counts, queries: int) -> dict[str, dict[str, float]]:
    """Statements and commands a query, by tier, above what the idle platform does in the same time."""

    def rates(of: Mapping[str, int], at_rest: Mapping[str, int]) -> dict[str, float]:
        share = busy.seconds / idle.seconds
        return {
            tier: round(max(0.0, (of.get(tier, 0) - at_rest.get(tier, 0) * share) / queries), 1)
            for tier in sorted({*of, *at_rest})
        }

    return {
        "statements": rates(busy.statements, idle.statements),
        "commands": rates(busy.commands, idle.commands),
    }


def count(side: Side, during: Callable[[], object]) -> Counts:
    """What `side` does while `during` runs."""
    log = side.postgres_log()
    side.sql(f"ALTER SYSTEM SET log_line_prefix = '{_PREFIX}'", "postgres")
    side.sql("ALTER SYSTEM SET log_statement = 'all'", "postgres")
    side.sql("SELECT pg_reload_conf()", "postgres")
    began_at = log.stat().st_size
    inode = log.stat().st_ino
    monitors = [_Monitor(client) for client in side.redis()]
    ports = tier_of_ports(side.tiers())
    began = time.monotonic()
    try:
        during()
        seconds = time.monotonic() - began
    finally:
        ports |= tier_of_ports(side.tiers())
        for monitor in monitors:
            monitor.end()
        side.sql("ALTER SYSTEM RESET log_statement", "postgres")
        side.sql("ALTER SYSTEM RESET log_line_prefix", "postgres")
        side.sql("SELECT pg_reload_conf()", "postgres")
    if log.stat().st_ino != inode:
        raise SideError(f"{side.name}: {log} was rotated while statements were counted; run it again")
    with log.open("rb") as file:
        file.seek(began_at)
        text = file.read().decode(errors="replace")
    commands: Counter[str] = Counter()
    for monitor in monitors:
        for port, number in monitor.found.items():
            commands["worker, web or beat" if side.delay_ms else ports.get(port, "other")] += number
    return Counts(seconds, statements_by_tier(text, side.analytics), commands)


class _Monitor:
    """Counts commands by their client's port, in a thread, until it is ended."""

    def __init__(self, client: Any) -> None:
        self.found: Counter[int] = Counter()
        self._client = client
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._ready.set()
            for seen in monitor.listen():
                if _END in seen["command"]:
                    return
                # What a script calls inside the server came in as one command.
                if seen["client_type"] == "tcp":
                    self.found[int(seen["client_port"])] += 1

    def end(self) -> None:
        """Have it see a last command, and wait for it."""
        with suppress(RedisError):
            self._client.ping() if not self._thread.is_alive() else self._client.echo(_END)
        self._thread.join(10)
        self._client.close()
