"""`.venv-superset/bin/python bench/cache_reads.py VALKEY`: what reading and storing chart data costs, as shipped and signed.

VALKEY is the path of a valkey-server or redis-server, which is started for this. Medians of the process's own processor time in
microseconds; the tenant's name, which is remembered for a minute, is not in them.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachelib.redis import RedisCache
from redis import ConnectionError as RedisDownError
from redis import Redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.codecs import frame
from runtime.results.envelope import signing_secret
from runtime.results.store import Store
from topology.settings.caching import Caching

CACHING = Caching(
    chart_data_ttl_seconds=3600,
    query_results_ttl_seconds=3600,
    jitter_percent=10,
    early_refresh=1.0,
    stale_seconds=60,
    single_flight=True,
    compression="zstd",
    compress_above_bytes=1024,
    max_result_bytes=2**26,
    spill=None,
)


def microseconds(run: Callable[[], object], times: int = 300) -> float:
    """The median of `times` runs, without the server's time and without waiting for it."""
    took: list[float] = []
    for _ in range(times):
        began = time.process_time()
        run()
        took.append((time.process_time() - began) * 1e6)
    return statistics.median(took)


def main() -> None:
    """Print a table in Markdown."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.argv[1], "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = Redis(port=port)
        while True:
            try:
                client.ping()
                break
            except RedisDownError:
                time.sleep(0.05)
        shipped = RedisCache(host=client, key_prefix="shipped:")
        ours = Store(client, "data_cache", "data_cache:", signing_secret("secret", "data_cache"), CACHING)
        print("| rows | read, shipped | read, ours | stored, shipped | stored, ours | kB, shipped | kB, ours |")
        print("|---|---|---|---|---|---|---|")
        for rows in (100, 1_000, 10_000, 100_000):
            _measure(rows, client, shipped, ours, {"df": frame(rows), "query": "SELECT …"})
    finally:
        server.terminate()
        server.wait()


def _measure(rows: int, client: Any, shipped: Any, ours: Store, value: dict[str, Any]) -> None:
    def ours_read() -> Any:
        envelope = ours.find("data_cache:@:key").envelope
        return envelope.value if envelope else None

    times = 300 if rows < 10_000 else 20
    figures = [
        microseconds(lambda: shipped.set("key", value), times),
        microseconds(lambda: ours.write("data_cache:@:key", value, 3600, 3660, 0.1), times),
    ]
    figures = [microseconds(lambda: shipped.get("key"), times), microseconds(ours_read, times), *figures]
    sizes = [int(client.strlen(key)) / 1000 for key in ("shipped:key", "data_cache:@:key")]
    print(f"| {rows} | " + " | ".join(f"{figure:.0f}" for figure in (*figures, *sizes)) + " |")


if __name__ == "__main__":
    main()
