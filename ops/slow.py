"""`superset-async slow`: which statements take most of the workers' time."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from client.output import Format, write_rows
from client.superset_client import Column, Result
from ops.options import Connect, RowFormat, connected, reported


class By(StrEnum):
    """What comes first."""

    TOTAL = "total"
    MEAN = "mean"
    P95 = "p95"
    MAX = "max"
    COUNT = "count"
    COST = "cost"


#: Keys of a row in the order of reading, with the decimals of a number (None: as it is).
COLUMNS: dict[str, int | None] = {
    "executions": None,
    "failed": None,
    "mean_seconds": 2,
    "p95_seconds": 2,
    "max_seconds": 2,
    "total_seconds": 1,
    "rows": None,
    "users": None,
    "cost": 4,
    "slowest": None,
    "database": None,
    "statement": None,
}
#: Characters of a statement in a table.
SHOWN = 80


@connected
def slow(
    *,
    by: Annotated[By, typer.Option("--by", help="what comes first")] = By.TOTAL,
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=168, help="of how many hours until now")] = 24,
    top: Annotated[int, typer.Option("--top", min=1, max=500, help="how many statements")] = 20,
    format: RowFormat = Format.TABLE,
    connect: Connect,
) -> None:
    """Show the slowest and most costly statements of the last hours, those that differ only in their values as one.

    JSON has the statements whole, CSV too. `slowest` is the id of the query that took longest. Charts are one row for each
    database. The user must be allowed to read Superset's action log, as administrators are.
    """
    with reported(), connect().client() as client:
        found = client.operations.slow(by, hours)
        found["rows"] = found["rows"][:top]
        if format is Format.JSON:
            sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            return
        write_rows(table(found["rows"], cut=format is Format.TABLE), format, sys.stdout)
        if format is Format.TABLE:
            whole = "" if found["complete"] else " (the newest; there are more)"
            sys.stderr.write(f"{found['executions']} executions in {hours:g} hours{whole}; cost in {found['currency']}\n")


def table(rows: list[dict[str, Any]], *, cut: bool) -> Result:
    """The rows, rounded; statements cut to fit a terminal where `cut`."""
    shown = [{key: _cell(row[key], decimals) for key, decimals in COLUMNS.items()} for row in rows]
    if cut:
        for row in shown:
            text = row["statement"]
            row["statement"] = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return Result(tuple(Column(name, None) for name in COLUMNS), shown, cut=False)


def _cell(value: Any, decimals: int | None) -> Any:
    return value if value is None or decimals is None else round(value, decimals)
