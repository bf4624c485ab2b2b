"""Figures that are taken once a side, outside the runs: cold starts, and what stored results need."""

from __future__ import annotations

import time
from typing import Any

from bench.load import workloads
from bench.load.cells import parse
from bench.load.comparison import Runs
from bench.load.sides import Side, first_answer

#: Keys of stored results whose sizes are looked at.
_SAMPLED = 200


def cold_starts(side: Side) -> dict[str, float]:
    """Seconds from a stopped worker, and from a stopped web tier and worker, to the next query's rows."""
    side.restart("worker")
    figures = {"worker cold start s": first_answer(side)}
    side.restart("worker")
    side.restart("web")
    began = time.monotonic()
    first_answer(side)
    return figures | {"restart to first answer s": time.monotonic() - began}


def stored_bytes(side: Side, runs: Runs) -> dict[str, float]:
    """MB of Redis for 100 000 cached charts of 1 000 rows × 10 columns: how much used memory grows by each that is stored."""
    servers = side.redis()
    before, keys = _used(servers)
    runs.generate(side, parse("chart-cold-1u"), _SAMPLED)
    after, more = _used(servers)
    if more <= keys:
        return {}
    return {
        f"Redis MB for 100 000 charts of {workloads.CHART_ROWS} × {workloads.CHART_COLUMNS}": (after - before)
        / _SAMPLED
        / 10
    }


def _used(servers: list[Any]) -> tuple[int, int]:
    """Bytes of memory that all servers use for data, and how many keys they have."""
    used = keys = 0
    for server in servers:
        used += int(server.info("memory")["used_memory_dataset"])
        keys += sum(int(database["keys"]) for database in server.info("keyspace").values())
    return used, keys
