"""`python bench/latency.py`: how long `SELECT 1` takes from submission to rows on the running local platform, and where.

Sequential queries by the project's client, asynchronous, polled by its own back-off. The parts of each add up to its whole:

submit   until Superset's web tier has written the query down
queue    until a worker has it: web puts the message on the broker, Celery takes it
execute  until the database has answered: Superset's worker, of which `database` is the statement with its connection
notice   until the client asks again and hears of it: polling, the client's own
fetch    the request for the rows: Superset's web tier

`database` is the same statement on a new connection each time (as Superset's NullPool does), measured beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from client.states import timeline
from client.superset_client import SupersetClient
from local import binaries, platform

_DIRECT = """
import json, os, sys, time, psycopg2
took = []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    connection = psycopg2.connect(os.environ["DSN"])
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    cursor.fetchall()
    connection.close()
    took.append((time.perf_counter() - began) * 1000)
print(json.dumps(took))
"""


def measure(stack: str, count: int) -> dict[str, list[float]]:
    """Milliseconds of each part of `count` queries, by part."""
    known = platform.status(stack)
    password = Path(known["password_file"]).read_text().strip()
    parts: dict[str, list[float]] = {name: [] for name in ("submit", "queue", "execute", "notice", "fetch", "whole")}
    with SupersetClient(known["url"], username=known["username"], password=password) as client:
        client.run("SELECT 0", known["database_id"])
        for _ in track(range(count), description="SELECT 1"):
            handle = client.submit("SELECT 1", known["database_id"])
            status = client.wait(handle)
            noticed = time.time() * 1000 - handle.sent_ms
            client.results(status)
            moments = timeline(handle, status, time.time() * 1000)
            if moments.queued is None or moments.started is None or moments.finished is None:
                raise RuntimeError(f"Superset did not record the times of query {handle.id}")
            queued, started, finished = moments.queued, moments.started, moments.finished
            parts["submit"].append(queued)
            parts["queue"].append(started - queued)
            parts["execute"].append(finished - started)
            parts["notice"].append(noticed - finished)
            parts["fetch"].append(moments.fetched - noticed)
            parts["whole"].append(moments.fetched)
    secrets = json.loads((Path(known["state_folder"]) / "secrets.json").read_text())
    dsn = f"postgresql://examples:{secrets['SAMPLE_PASSWORD']}@127.0.0.1:{known['ports']['postgres']}/examples"
    direct = subprocess.run(
        [str(binaries.superset_python()), "-c", _DIRECT, str(count)],
        env={"DSN": dsn},
        check=True,
        capture_output=True,
        text=True,
    )
    return parts | {"database": json.loads(direct.stdout)}


def main() -> None:
    """Measure and print P50 and P95 of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", default="local")
    parser.add_argument("--count", type=int, default=50)
    arguments = parser.parse_args()
    if (state := platform.status(arguments.stack)["state"]) != "running":
        parser.error(f"stack {arguments.stack} is {state} here; start it: make up STACK={arguments.stack}")
    parts = measure(arguments.stack, arguments.count)
    whole = statistics.median(parts["whole"])
    table = Table("part", "P50 ms", "P95 ms", "share of P50", box=None)
    for name, took in parts.items():
        p95 = statistics.quantiles(took, n=20)[18]
        table.add_row(name, f"{statistics.median(took):.0f}", f"{p95:.0f}", f"{statistics.median(took) / whole:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
