"""How often one query and one chart go to the stores, counted on the real ones, against docs/round-trips.md."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared, Services
from tests.runtime.stacks import topology
from tests.runtime.superset.counted_process import TABLE

pytestmark = pytest.mark.superset

#: As `tests.runtime.superset.counted` reads it.
LOG_PREFIX = "counted|%d|%p|"


@pytest.fixture(scope="module")
def logged(prepared: Prepared) -> Iterator[Services]:
    """The services, with every statement in PostgreSQL's log."""
    services = prepared.services
    settings = {"log_statement": "'all'", "log_line_prefix": f"'{LOG_PREFIX}'", "log_connections": "on"}
    for name, value in settings.items():
        services.sql(f"ALTER SYSTEM SET {name} = {value}")
    services.sql("SELECT pg_reload_conf()")
    services.sql(f"CREATE TABLE {TABLE} AS SELECT 'a' AS kind; GRANT SELECT ON {TABLE} TO analyst", database="analytics")
    yield services
    for name in settings:
        services.sql(f"ALTER SYSTEM RESET {name}")
    services.sql("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def costs(logged: Services) -> dict[str, Any]:
    """What each step of a query and of a chart cost, for a user who has just done the same."""
    plan = topology(
        "minimal",
        platform="local",
        local={"web_port": 8088, "redis_port": logged.redis_port, "postgres_port": logged.postgres_port},
        databases={"analytics": {"keep_connections": True}},
    )
    command = [str(binaries.superset_python()), "-m", "tests.runtime.superset.counted_process"]
    log = str(logged.folder / "services.log")

    def start(role: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, role, log],
            env=logged.process_environment(plan, role, "counted"),
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(logged.folder / f"counted-{role}.log").open("w"),
            text=True,
        )

    with start("web") as web:
        assert web.stdout is not None
        for line in web.stdout:
            if line.strip() == "submitted":
                break
        with start("worker") as worker:
            executed, _ = worker.communicate()
        asked, _ = web.communicate("go on\n")
    errors = {role: (logged.folder / f"counted-{role}.log").read_text()[-6000:] for role in ("web", "worker")}
    assert (web.returncode, worker.returncode) == (0, 0), errors
    return {**json.loads(asked.splitlines()[-1]), **json.loads(executed.splitlines()[-1])}


#: Columns of the page's table, by what is counted.
COLUMNS = (
    "statements",
    "pings",
    "transactions",
    "analytic statements",
    "connections",
    "redis round trips",
)


def stated() -> dict[str, dict[str, int]]:
    """The numbers of docs/round-trips.md, by step."""
    found: dict[str, dict[str, int]] = {}
    for line in (PROJECT / "docs/round-trips.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].startswith(("query: ", "chart: ")):
            found[cells[0]] = dict(zip(COLUMNS, map(int, cells[1:7]), strict=True))
    return found


def test_each_step_goes_to_the_stores_as_often_as_its_page_says(costs: dict[str, Any]) -> None:
    counted = {step: {name: cost["numbers"][name] for name in COLUMNS} for step, cost in costs.items()}
    expected = stated()
    print({step: (numbers, costs[step]["metadata"]) for step, numbers in counted.items() if numbers != expected.get(step)})
    assert counted == expected
    assert counted.keys() == expected.keys()
