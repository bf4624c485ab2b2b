"""What one query, one slot and one connection cost, as measured; every number of the model that is not the reader's own.

All of Superset 6.1 with this project on 2 cores of Debian 12, Python 3.11; the command that measures each is beside it.
Processor times are the upper ends of what quiet runs showed, so that a recommendation is not too small.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """Seconds of processor time, bytes, and shares. `make bench CELLS=small-50u` shows the first four."""

    #: Submission, about two status requests and the rows: 80-93 ms.
    web_cpu_seconds: float = 0.093
    #: The task around the statement: 51-59 ms.
    worker_cpu_seconds: float = 0.059
    #: Metadata of one query: 42-49 ms, of which most is new connections and pings.
    postgres_cpu_seconds: float = 0.049
    #: Messages, states, events and rows: 1 ms.
    redis_cpu_seconds: float = 0.001
    #: How much of a core, a pod or a pool may be busy in the peak hour: the scaler's own target.
    utilization: float = 0.70
    #: A worker's child under work, with what it shares: the limit at which the presets replace it.
    child_bytes: int = 433_000_000
    #: A stored result of 1 000 rows × 10 columns: SQL Lab's (zlib), and a chart's (zstd). `bench/codecs.py`, `make bench …
    #: --once`.
    sql_result_bytes: int = 73_000
    chart_result_bytes: int = 25_400
    #: `python -m bench.footprints`: a message on the broker, a query in the metadata database, a PostgreSQL connection's own
    #: memory.
    message_bytes: int = 1_301
    metadata_bytes: int = 3_140
    connection_bytes: int = 2_531_000
    #: An AOF rewrite beside a snapshot, times maxmemory (docs/measurements.md).
    redis_volume_factor: float = 4.4


MEASURED = Constants()
