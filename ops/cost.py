"""`superset-async cost`: what queries cost, by tenant, user or database."""

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
    """What rows are of."""

    TENANT = "tenant"
    USER = "user"
    DATABASE = "database"


#: Keys of a row in their order, with the decimals of a number (None: as it is).
_COLUMNS: dict[str, int | None] = {
    "queries": None,
    "failed": None,
    "seconds": 1,
    "worker_cost": 4,
    "redis_cost": 4,
    "cost": 4,
    "share_percent": 1,
    "cost_per_query": 6,
}
_OF_TENANTS: dict[str, int | None] = {
    "reserved_cost": 2,
    "reserved_used_percent": 1,
    "month_to_date": 2,
    "month_projected": 2,
    "budget": 2,
    "budget_left": 2,
}


@connected
def cost(
    *,
    by: Annotated[By, typer.Option("--by", help="what rows are of")] = By.TENANT,
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=8784, help="of how many hours until now")] = 24,
    format: RowFormat = Format.TABLE,
    connect: Connect,
) -> None:
    """Show what the queries of the last hours cost, SQL Lab's and charts', with the stack's rates.

    By tenant also what its reserved workers cost whether used or not, and what is left of its budget of this month. JSON is
    the whole report, with the sum. The user must be allowed to read Superset's action log, as administrators are.
    """
    with reported(), connect().client() as client:
        found = client.operations.usage(by, hours)
        if format is Format.JSON:
            sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            return
        write_rows(table(found), format, sys.stdout)
        if format is Format.TABLE:
            total = found["total"]
            sys.stderr.write(
                f"{total['queries']} queries in {_hours(hours, found)} cost {total['cost']:.2f} {found['currency']}: "
                f"workers {total['worker_cost']:.2f}, Redis {total['redis_cost']:.2f}\n"
            )


def _hours(asked: float, found: dict[str, Any]) -> str:
    """The time that was asked for, and that of which queries are known where it is less."""
    counted = float(found.get("counted_hours", asked))
    return f"{asked:g} hours" if counted >= asked else f"{asked:g} hours (the first one began {counted:.2g} hours ago)"


def table(found: dict[str, Any]) -> Result:
    """The report's rows, rounded, in columns that those of its kind have."""
    columns = _COLUMNS | (_OF_TENANTS if found["by"] == By.TENANT else {})
    rows = [
        {found["by"]: row[found["by"]], **{key: _rounded(row[key], decimals) for key, decimals in columns.items()}}
        for row in found["rows"]
    ]
    return Result(tuple(Column(name, None) for name in (found["by"], *columns)), rows, cut=False)


def _rounded(value: Any, decimals: int | None) -> Any:
    return value if value is None or decimals is None else round(value, decimals)
