"""A tenant is taken out of the stack file while its queries run and wait: all end, and each is executed once.

Its own two children have begun some; `up` lets those finish, and the workers of the default queue execute the rest.
`python -m bench.scenarios.removed_tenant` runs it alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from bench.report import Check, show
from bench.scenarios.killed_worker import TABLES, statement
from bench.world import World
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.supervision import wait_until

QUERIES, SECONDS = 60, 240
TENANT = "acme"
WITHOUT: dict[str, Any] = {
    "topology": "multi-tenant",
    "workers": {"concurrency": 2, "min_workers": 1, "max_workers": 1},
    "databases": {SAMPLE_DATABASE: {"sample": True, "allow_dml": True}},
    "tenants": {"other": {"users": ["nobody"]}},
}
#: The administrator's queries are the tenant's.
WITH = WITHOUT | {"tenants": {**WITHOUT["tenants"], TENANT: {"users": ["admin"]}}}


def run(say: Callable[[str], None] = print, queries: int = QUERIES) -> list[Check]:
    """Remove a tenant with `queries` queries on their way; what held."""
    fault = f"tenant removed with {queries} queries on their way"
    with World(WITH, say) as world:
        world.sql(TABLES, SAMPLE_DATABASE, user=SAMPLE_ROLE)
        with world.client() as client:
            for number in range(queries):
                client.submit(statement(number), world.database_id)
        wait_until(lambda: _count(world, "status = 'success'") >= 2, 60)
        before = _count(world, "status = 'success'")
        world.change(WITHOUT)
        wait_until(lambda: _count(world, "status IN ('success', 'failed', 'stopped', 'timed_out')") == queries, SECONDS)
        states = world.sql("SELECT status || ' ' || count(*) FROM query GROUP BY status ORDER BY 1").splitlines()
        own, default = (world.log(name).count("get_sql_results") for name in (f"worker-{TENANT}", "worker-default"))
        written = world.sql("SELECT number, count(*) FROM runs GROUP BY number", SAMPLE_DATABASE).split()
        left = world.redis().llen(TENANT)
    once = {f"{number}|1" for number in range(1, queries, 2)}
    return [
        Check(
            fault, "it has queries when it is removed", f"{queries - before} not ended", held=queries - before > queries // 2
        ),
        Check(fault, "every query succeeds", ", ".join(states), held=states == [f"success {queries}"]),
        Check(fault, "each is executed once", f"{len(written)} of {len(once)} rows, none twice", held=set(written) == once),
        Check(fault, "the default queue's workers take over", f"log lines: {own} own, {default} default", held=default > 0),
        Check(fault, "its queue is empty", f"{left} messages", held=left == 0),
    ]


def _count(world: World, which: str) -> int:
    return int(world.sql(f"SELECT count(*) FROM query WHERE {which}"))


def main() -> int:
    """Run the scenario alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=QUERIES)
    checks = run(queries=parser.parse_args().queries)
    show(checks)
    return 1 if any(check.held is False for check in checks) else 0


if __name__ == "__main__":
    raise SystemExit(main())
