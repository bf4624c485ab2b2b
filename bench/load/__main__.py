"""`make bench`: two configurations of Superset's asynchronous queries measured against each other, on this machine.

    make bench                                          the default set: stock-container against minimal, at most an hour
    make bench A=stock-documentation B=enterprise CELLS="small-50u dashboard-1u" PAIRS=7
    python -m bench.load --list                         what sides and cells there are

Both sides run at the same time, each with PostgreSQL, Valkey, web tier, worker and beat of its own; the load goes to one, then to
the other, and so on. What other programs took of the machine is measured in every run: a figure from a noisy machine is
called so.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.load import measure, once, report, sides
from bench.load.cells import (
    DEFAULT_CELLS,
    QUICK_CELLS,
    WORKLOADS,
    Cell,
    CellError,
    Schedule,
    expected_seconds,
    in_order,
    parse,
)
from bench.load.comparison import CellResult, Runs
from bench.load.verdict import Bounds
from topology.problems import MendableError

SETS = {"default": DEFAULT_CELLS, "quick": QUICK_CELLS}


def wanted(names: Sequence[str]) -> list[Cell]:
    """The cells that `names` (cells, or sets of them) mean, each once; CellError for what is neither."""
    listed = [cell for name in names for cell in SETS.get(name, (name,))]
    return in_order([parse(name) for name in dict.fromkeys(listed)])


def compare(
    a: sides.Side, b: sides.Side, cells: Sequence[Cell], *, pairs: int, schedule: Schedule, console: Console, with_once: bool
) -> tuple[list[CellResult], dict[str, dict[str, float]]]:
    """Measure all cells on both sides, in turns; the results, and what is taken once a side."""
    runs = Runs(a, b, schedule)
    results: list[CellResult] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(cells) * pairs)
        for cell in cells:
            for side in (a, b):
                side.set_delay(cell.delay_ms)
            result = CellResult(cell)
            results.append(result)
            for pair in range(pairs):
                progress.update(bar, description=f"{cell.name}, pair {pair + 1}")
                # The first of a pair may find the machine in another state than the second: who is first takes turns.
                order = ((a, result.a), (b, result.b))
                for side, outcomes in order if pair % 2 == 0 else order[::-1]:
                    outcomes.append(runs.run(side, cell))
                progress.advance(bar)
            rates = " and ".join(f"{it.figures['queries/s']:.1f}" for it in (result.a[-1], result.b[-1]))
            others = result.b[-1].foreign
            progress.console.print(
                f"{cell.name}: {rates} queries/s in the last pair, {others:.0%} of the machine taken by others"
            )
            for side in (a, b):
                result.counted[side.name] = runs.count(side, cell)
    other: dict[str, dict[str, float]] = {}
    if with_once:
        for side in (a, b):
            side.set_delay(0.0)
            console.print(f"cold starts and stored bytes of {side.name}")
            other[side.name] = once.cold_starts(side) | once.stored_bytes(side, runs)
    return results, other


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", nargs="*", default=["default"], help="cells, or the sets default and quick")
    parser.add_argument("--a", default="stock-container", help="the side to compare with")
    parser.add_argument("--b", default="minimal", help="the side that is compared")
    parser.add_argument("--pairs", type=int, default=Bounds.pairs, help="runs of each side, in turns")
    parser.add_argument("--measure", type=float, default=Schedule.measure, help="seconds of a run")
    parser.add_argument("--warm", type=float, default=Schedule.warm, help="seconds before they count")
    parser.add_argument("--foreign", type=float, default=Bounds.foreign, help="share of the machine that others may take")
    parser.add_argument("--spread", type=float, default=Bounds.spread, help="widest range of ratios, of their median")
    parser.add_argument("--once", action="store_true", help="also cold starts, and bytes of stored charts")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the report goes")
    parser.add_argument("--keep", action="store_true", help="keep the sides' files (logs) afterwards")
    parser.add_argument("--list", action="store_true", help="say what sides and cells there are")
    return parser.parse_args()


def _list(console: Console) -> None:
    for name, source in WORKLOADS.items():
        console.print(f"[bold]{name}[/]: {source}", highlight=False)
    console.print(f"\ndefault: {' '.join(DEFAULT_CELLS)}\nquick: {' '.join(QUICK_CELLS)}", highlight=False)
    console.print(f"\nsides: {', '.join(sides.names())}", highlight=False)


def main() -> int:
    """Run the comparison; 0 where every main figure stands, 2 where the machine was too noisy for one of them."""
    arguments, console = _arguments(), Console()
    if arguments.list:
        _list(console)
        return 0
    schedule = Schedule(warm=arguments.warm, measure=arguments.measure)
    bounds = Bounds(arguments.foreign, arguments.spread, min(Bounds.pairs, arguments.pairs))
    try:
        cells = wanted(arguments.cells)
        if arguments.a == arguments.b:
            raise CellError(f"--a and --b are both {arguments.a}: name two sides, or there is nothing to compare")
        return _run(arguments, cells, schedule, bounds, console)
    except MendableError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1


def _run(arguments: argparse.Namespace, cells: list[Cell], schedule: Schedule, bounds: Bounds, console: Console) -> int:
    expected = expected_seconds(cells, arguments.pairs, schedule)
    ends = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=expected)
    console.print(
        f"{arguments.a} against {arguments.b}: {len(cells)} cells × {arguments.pairs} pairs, about {expected / 60:.0f} min, "
        f"until {ends:%H:%M}"
    )
    if arguments.pairs < Bounds.pairs:
        console.print(f"fewer than {Bounds.pairs} pairs: a trial, not a result", style="yellow")
    folder = Path(tempfile.mkdtemp(prefix="superset-async-bench-"))
    began, machine = time.time(), measure.machine_facts()
    with ExitStack() as at_end:
        if arguments.keep:
            at_end.callback(console.print, f"the sides' files: {folder}")
        else:
            at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        a, b = sides.side(arguments.a, folder), sides.side(arguments.b, folder)
        for side in (a, b):
            at_end.callback(side.stop)
            with console.status(f"start {side.name}"):
                side.start()
            console.print(f"{side.name} answers after {sides.first_answer(side):.1f} s", highlight=False)
        results, other = compare(
            a, b, cells, pairs=arguments.pairs, schedule=schedule, console=console, with_once=arguments.once
        )
    found = report.Report(
        a=a.name,
        b=b.name,
        sources={side.name: side.source for side in (a, b)},
        command=shlex.join(["python", "-m", "bench.load", *sys.argv[1:]]),
        began=f"{datetime.datetime.fromtimestamp(began, datetime.UTC):%Y-%m-%d %H:%M}",
        took_seconds=time.time() - began,
        machine=machine,
        pairs=arguments.pairs,
        bounds=bounds,
        cells=results,
        other=other,
    )
    for path in report.write(found, arguments.folder):
        console.print(f"written: {path}", highlight=False)
    standing = [it.stands for cell in results for name, it in report.verdicts(cell, bounds).items() if name == "queries/s"]
    if not all(standing):
        console.print(
            f"{standing.count(False)} of {len(standing)} cells have no result: the machine was too noisy", style="yellow"
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
