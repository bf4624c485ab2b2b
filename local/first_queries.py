"""The first answers of a platform that is up: one SQL Lab query and one chart, through the public API, with their timelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from client.errors import ClientError, LoginError
from client.states import Timeline
from client.superset_client import SupersetClient
from runtime.superset.sample import TABLE
from topology.problems import MendableError

SQL = (
    f"SELECT region, count(*) AS orders, sum(quantity * unit_price) AS revenue FROM {TABLE} GROUP BY region ORDER BY region"
)


class FirstQueryError(MendableError):
    """The platform is up but did not answer; says what failed and where to look."""


def chart_payload(dataset_id: int) -> dict[str, Any]:
    """Superset's query context of the sample's revenue by category, `force`d past the cache so that a worker computes it."""
    return {
        "datasource": {"id": dataset_id, "type": "table"},
        "force": True,
        "queries": [{"columns": ["category"], "metrics": ["revenue"], "orderby": [["revenue", False]], "row_limit": 100}],
        "result_format": "json",
        "result_type": "full",
    }


def show(known: dict[str, Any], console: Console) -> None:
    """Ask the platform that `status` describes and print when each answer was where; FirstQueryError when one fails.

    A stack without the sample has nothing to ask.
    """
    if known["database_id"] is None or known["dataset_id"] is None:
        return
    password = Path(known["password_file"]).read_text().strip()
    with SupersetClient(known["url"], username=known["username"], password=password) as client:
        try:
            client.login()
        except LoginError:
            console.print(
                f"[yellow]·[/] the password of {known['username']!r} was changed in Superset, so no first query is asked with "
                f"the one in {known['password_file']}; write the new one there for `superset-async query`",
                highlight=False,
            )
            return
        try:
            run = client.run(SQL, known["database_id"])
            chart = client.chart_data(chart_payload(known["dataset_id"]))
        except ClientError as error:
            raise FirstQueryError(
                f"the platform is up, but its first query failed: {error}\nlogs: superset-async logs --stack {known['stack']}"
            ) from error
    table = Table("ms after submission", "submitted", "queued", "started", "finished", "fetched", "", box=None)
    table.add_row("SQL Lab query", *_milliseconds(run.timeline), f"{len(run.result.rows)} rows")
    table.add_row("chart", *_milliseconds(chart.timeline), f"{len(chart.queries[0]['data'])} rows")
    console.print()
    console.print(table)


def _milliseconds(moments: Timeline) -> list[str]:
    """The cells of a timeline; Superset does not say when a chart's job started."""
    known = (moments.queued, moments.started, moments.finished, moments.fetched)
    return ["0", *("–" if moment is None else f"{moment:.0f}" for moment in known)]
