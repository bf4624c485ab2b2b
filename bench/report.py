"""What a scenario reports: for each fault, what must hold, what was seen, and whether it held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Check:
    """One line of the report. `seen` has the figures; `held` is None for a figure that has no bound (a comparison)."""

    fault: str
    must_hold: str
    seen: str
    held: bool | None


def show(checks: Sequence[Check], console: Console | None = None) -> None:
    """Print the checks as a table."""
    table = Table("fault", "must hold", "seen", "held", box=None, pad_edge=False)
    for check in checks:
        mark = {True: "[green]yes[/]", False: "[red]NO[/]", None: "·"}[check.held]
        table.add_row(check.fault, check.must_hold, check.seen, mark)
    (console or Console(width=160)).print(table)


def as_markdown(checks: Sequence[Check]) -> str:
    """The checks as a table for docs/measurements.md."""
    rows = [
        f"| {it.fault} | {it.must_hold} | {it.seen} | {'yes' if it.held else '·' if it.held is None else 'NO'} |"
        for it in checks
    ]
    return "\n".join(["| fault | must hold | seen | held |", "|---|---|---|---|", *rows]) + "\n"


def percentiles(seconds: Sequence[float]) -> str:
    """P50, P95 and the longest, in seconds; empty without any."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    p50, p95 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95))
    return f"P50 {p50:.1f} s, P95 {p95:.1f} s, max {ordered[-1]:.1f} s"
