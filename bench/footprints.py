"""`python -m bench.footprints [--queries 300]`: bytes that one query leaves on the broker, in the metadata database and in a
connection.

They are counts and not times, so a busy machine changes nothing. `sizing/constants.py` has what this printed.
"""

from __future__ import annotations

import argparse
import statistics

import psutil
from rich.console import Console

from bench.world import World
from runtime.queries.executions import TABLE

_TABLES = ("query", "logs", TABLE)


def measure(world: World, queries: int) -> dict[str, float]:
    """Bytes by name, of `queries` queries that are executed, and of as many that wait."""
    database = world.database_id
    before = _metadata_bytes(world)
    with world.client() as client:
        for number in range(queries):
            client.run(f"SELECT {number}", database)
        grown = (_metadata_bytes(world) - before) / queries
        world.stop("worker-default")
        handles = [client.submit(f"SELECT {number}", database) for number in range(queries // 10)]
        broker = world.redis()
        waiting = broker.llen("default")
        message = broker.memory_usage("default", samples=0) / waiting
    backends = [
        process.memory_full_info().uss
        for process in psutil.Process(world.pid("postgres")).children()
        if " superset " in " ".join(process.cmdline())
    ]
    if waiting < len(handles):
        raise RuntimeError(f"{waiting} messages wait, {len(handles)} were submitted")
    return {
        "message_bytes": message,
        "metadata_bytes": grown,
        "connection_bytes (median, memory of its own)": statistics.median(backends),
        "connections seen": len(backends),
    }


def _metadata_bytes(world: World) -> int:
    world.sql("".join(f"VACUUM {table};" for table in _TABLES))
    return sum(int(world.sql(f"SELECT pg_total_relation_size('{table}')")) for table in _TABLES)


def main() -> None:
    """Measure on a platform of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=300)
    arguments = parser.parse_args()
    console = Console()
    with World(
        {"topology": "minimal", "resilience": {"max_queued": 5000, "max_in_flight_per_user": 5000}}, console.print
    ) as world:
        for name, value in measure(world, arguments.queries).items():
            console.print(f"{name}: {value:.0f}", highlight=False)


if __name__ == "__main__":
    main()
