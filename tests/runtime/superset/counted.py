"""What a piece of work costs the stores: every statement as PostgreSQL itself logs it, and every command that redis-py sends.

PostgreSQL must log all statements (`log_statement = all`) and connections with the prefix `counted|%d|%p|`, to the file that
`Counter` reads. Commands to Redis are those of the thread that does the work: what a process's own threads do by the clock is no
cost of a query.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.connection

#: What SQLAlchemy or Superset sends to see whether a connection is alive.
_PING = re.compile(r"SELECT 1|;|")
_LINE = re.compile(r"^counted\|(?P<database>[^|]*)\|(?P<session>\d+)\|LOG:  (?P<text>.*)$")
_NEXT = re.compile(r"^counted\|", re.MULTILINE)


@dataclass
class Cost:
    """Statements of the metadata and the analytic database, connections made, commands and round trips of Redis."""

    metadata: list[str] = field(default_factory=list)
    analytic: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    redis: list[str] = field(default_factory=list)
    redis_trips: int = 0
    cpu_ms: float = 0.0

    def numbers(self) -> dict[str, int]:
        """How many of each kind; transactions and pings of the metadata database are also among its statements."""
        return {
            "statements": len(self.metadata),
            "pings": sum(bool(_PING.fullmatch(each)) for each in self.metadata),
            "transactions": sum(each in ("COMMIT", "ROLLBACK") for each in self.metadata),
            "analytic statements": len(self.analytic),
            "connections": len(self.connections),
            "redis commands": len(self.redis),
            "redis round trips": self.redis_trips,
        }


class Counter:
    """Counts what the calling thread does between the begin and the end of a block."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._cost: Cost | None = None
        self._thread = threading.get_ident()
        self._watch_redis()

    @contextmanager
    def count(self) -> Generator[Cost]:
        """Have the cost of the block in what is given, once it has ended."""
        cost = Cost()
        start, cpu = self._log.stat().st_size, time.thread_time()
        self._cost = cost
        try:
            yield cost
        finally:
            self._cost = None
            cost.cpu_ms = (time.thread_time() - cpu) * 1000
            with self._log.open(encoding="utf-8", errors="replace") as log:
                log.seek(start)
                _add(cost, log.read())

    def _watch_redis(self) -> None:
        shipped = redis.connection.AbstractConnection.send_packed_command

        def send_packed_command(connection: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
            if self._cost is not None and threading.get_ident() == self._thread:
                self._cost.redis_trips += 1
                text = command if isinstance(command, bytes) else b"".join(command)
                self._cost.redis += commands_of(text)
            return shipped(connection, command, *args, **kwargs)

        setattr(redis.connection.AbstractConnection, "send_packed_command", send_packed_command)  # noqa: B010


def commands_of(packed: bytes) -> list[str]:
    """The commands in what is sent to Redis at once, each with its first argument."""
    found: list[str] = []
    place = 0
    while place < len(packed):
        end = packed.index(b"\r\n", place)
        count = int(packed[place + 1 : end])
        place = end + 2
        words: list[str] = []
        for _ in range(count):
            end = packed.index(b"\r\n", place)
            length = int(packed[place + 1 : end])
            words.append(packed[end + 2 : end + 2 + length][:80].decode("utf-8", "replace"))
            place = end + 2 + length + 2
        found.append(" ".join(words[:2]))
    return found


def _add(cost: Cost, log: str) -> None:
    places = [match.start() for match in _NEXT.finditer(log)] + [len(log)]
    for begin, end in itertools.pairwise(places):
        first, _, rest = log[begin:end].partition("\n")
        found = _LINE.match(first)
        if found is None:
            continue
        text = " ".join(f"{found['text']} {rest}".split())
        if text.startswith("connection authorized"):
            cost.connections.append(found["database"])
        elif text.startswith(("statement: ", "execute ")):
            statement = text.partition(": ")[2]
            (cost.metadata if found["database"] == "superset" else cost.analytic).append(statement)
