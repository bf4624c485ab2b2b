"""PostgreSQL restarts, and has no connection left, while 50 clients submit: no query stays open, and the pools heal.

One server has both the metadata and the data here, so that a fault meets every connection at once.
`python -m bench.scenarios.postgres` runs it alone.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from bench.report import Check, percentiles, show
from bench.world import Load, World
from local import binaries
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.supervision import wait_until

CLIENTS = 50
SETTINGS: dict[str, Any] = {
    "topology": "enterprise",
    "web": {"processes": 2, "threads": 20, "min_replicas": 1, "max_replicas": 1},
    "workers": {"concurrency": 4, "min_workers": 1, "max_workers": 1, "scaling": None},
    # All clients are one user.
    "resilience": {"max_in_flight_per_user": 10_000},
}
#: Seconds for which no connection is left.
EXHAUSTED = 20.0


def _left_open(world: World, seconds: float) -> float:
    """Seconds until no query is open any more; the bound where that does not come."""
    began = time.monotonic()

    def none_open() -> bool:
        return world.sql("SELECT count(*) FROM query WHERE status IN ('pending', 'running')") == "0"

    wait_until(none_open, seconds, pause=0.5)
    return time.monotonic() - began


def _during(world: World, fault: str, cause: Callable[[], None]) -> list[Check]:
    with Load(world, clients=CLIENTS, sql=lambda n: f"SELECT wait_seconds(0.3, {n})", think=0.5) as load:
        time.sleep(12)
        cause()
        time.sleep(25)
        healed = len(load.outcomes)
        time.sleep(10)
        late = [outcome for outcome in load.outcomes[healed:] if outcome.kind == "success"]
    said = {
        outcome.message.partition("\n")[0][:80] for outcome in load.outcomes if outcome.kind not in ("success", "refused")
    }
    open_for = _left_open(world, 70)
    return [
        Check(fault, "no query stays open", f"none open after {open_for:.0f} s; {dict(load.counts())}", held=open_for < 65),
        Check(
            fault,
            "it goes on by itself",
            f"{len(late)} succeeded in 10 s, {percentiles([outcome.seconds for outcome in late])}",
            held=len(late) > 20,
        ),
        Check(fault, "who had to fail was told why", "; ".join(sorted(said)[:3]) or "nobody failed", held=None),
    ]


def _exhaust(world: World) -> None:
    """Take every connection that a normal user may have, and give them back."""
    postgres = world.topology.postgres
    free = postgres.max_connections - int(world.sql("SELECT count(*) FROM pg_stat_activity"))
    password = world.secrets["SAMPLE_PASSWORD"]
    uri = f"postgresql://{SAMPLE_ROLE}@{postgres.host}:{postgres.port}/{SAMPLE_DATABASE}"
    psql = [str(binaries.postgres_program("psql")), "--no-psqlrc", "-q", uri, "-c", f"SELECT wait_seconds({EXHAUSTED})"]
    holders = [
        subprocess.Popen(psql, env={"PGPASSWORD": password}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(free)
    ]
    for holder in holders:
        holder.wait(EXHAUSTED + 60)


def run(say: Callable[[str], None] = print) -> list[Check]:
    """Both faults, one after the other, on one platform."""
    with World(SETTINGS, say) as world:
        checks = _during(world, "PostgreSQL is killed and restarted", lambda: world.kill_for("postgres", 3))
        return checks + _during(world, f"no connection is left for {EXHAUSTED:.0f} s", lambda: _exhaust(world))


if __name__ == "__main__":
    show(run())
