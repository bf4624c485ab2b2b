"""What users ask for: the tables, the statements and the charts of each workload. Pure, and the same for every side."""

from __future__ import annotations

import random
from typing import Any

from bench.load.cells import Workload

TABLE = "bench_facts"
ROWS = 20_000
#: By how much the article's medium and large durations are divided.
SCALE = 20
#: Seconds in which a storm's charts are the same ones.
STORM_SECONDS = 5
#: Of the other tenant's queries in `tenants`, and how many of them are under way at once.
FLOOD_SECONDS, FLOOD_CLIENTS = 2.0, 20
CHART_ROWS, CHART_COLUMNS = 1_000, 10

#: Superset disallows pg_sleep itself; this function sleeps and costs no processor time.
PREPARE = f"""
CREATE OR REPLACE FUNCTION wait_seconds(seconds float8, what bigint DEFAULT 0) RETURNS bigint LANGUAGE plpgsql VOLATILE AS
$$ BEGIN PERFORM pg_sleep(seconds); RETURN what; END $$;
CREATE TABLE IF NOT EXISTS {TABLE} AS
SELECT n AS id, 'kind-' || n % {CHART_ROWS} AS kind,
       {", ".join(f"(n * 2654435761 / {7**column} % 100000)::float8 / 100 AS c{column}" for column in range(1, CHART_COLUMNS))}
FROM generate_series(1::bigint, {ROWS}) AS n;
ANALYZE {TABLE};
"""


def sleeping(seconds: float, rows: int, number: int) -> str:
    """A statement that waits once in the database and then returns `rows` rows; `number` makes it one of its kind."""
    return (
        f"WITH waited AS MATERIALIZED (SELECT wait_seconds({seconds:.3f}, {number}) AS what) "
        f"SELECT facts.* FROM waited, {TABLE} AS facts ORDER BY id LIMIT {rows}"
    )


def statement(workload: Workload, number: int, dice: random.Random) -> tuple[str, str]:
    """The SQL of a workload's query, and of which class it is: small, medium or large."""
    kind = workload
    if workload == "mixed":
        kind = dice.choices(("small", "medium", "large"), (80, 15, 5))[0]
    if kind == "medium":
        return sleeping(dice.uniform(5, 30) / SCALE, 1_000, number), "medium"
    if kind == "large":
        return sleeping(dice.uniform(60, 95) / SCALE, 10_000, number), "large"
    return f"SELECT {number} AS a", "small"


def flood(number: int) -> str:
    """A query of the tenant that floods."""
    return f"SELECT wait_seconds({FLOOD_SECONDS}, {number})"


def chart(dataset: int, salt: int) -> dict[str, Any]:
    """The query context of a chart; charts of another `salt` share nothing in any cache, and have the same size."""
    metrics = [
        {"expressionType": "SQL", "sqlExpression": f"sum(c{column})", "label": f"m{column}"}
        for column in range(1, CHART_COLUMNS)
    ]
    query: dict[str, Any] = {
        "columns": ["kind"],
        "metrics": metrics,
        "filters": [],
        "extras": {"where": f"id > {-salt}"},
        "orderby": [],
        "row_limit": CHART_ROWS,
    }
    return {
        "datasource": {"id": dataset, "type": "table"},
        "force": False,
        "queries": [query],
        "result_format": "json",
        "result_type": "full",
    }


def charts(workload: Workload, number: int, now: float, run: int) -> list[int]:
    """The salts of the charts that one user asks for at once; `run` keeps one run's cold charts apart from another's."""
    base = run * 10_000_000
    if workload == "chart-cached":
        return [1]
    if workload == "fanout":
        return list(range(1, 11))
    if workload == "storm":
        period = int(now // STORM_SECONDS)
        return [base + 9_000_000 + (period % 10_000) * 10 + place for place in range(6)]
    if workload == "dashboard":
        return [base + 1_000 + number * 10 + place for place in range(10)]
    return [base + 1_000 + number]
