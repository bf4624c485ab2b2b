"""`make bench-tuning`: the article's table of workers and prefetch, on this project, with what it does not show.

Worker children and prefetch 2/1, 4/4 and 8/8, on short, long and mixed queries: queries a second and P50, as the article has
them, and beside them what they hide: how long short queries wait behind long ones, and the memory of the worker. One
platform after the other, since three at once would share the cores; the rounds take turns.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from bench.load.cells import Schedule, parse
from bench.load.comparison import Outcome, Runs
from bench.load.sides import OurSide, Side, first_answer
from bench.load.verdict import Bounds, median_and_range

#: Children of the worker and messages that it holds for each: the article's rows.
SETTINGS: tuple[tuple[int, int], ...] = ((2, 1), (4, 4), (8, 8))
CELLS: Mapping[str, str] = {"short": "small-50u", "long": "large-10u", "mixed": "mixed-50u"}
_FIGURES = ("queries/s", "P50 s", "P95 s", "P95 s of small", "CPU ms a query", "memory MB")


def name_of(children: int, prefetch: int) -> str:
    """How a row of the table is called."""
    return f"{children}-{prefetch}"


def side_of(children: int, prefetch: int, folder: Path) -> Side:
    """The project's minimal topology with a worker of `children`, all of them there from the start."""
    workers = {"concurrency": children, "prefetch_multiplier": prefetch, "min_workers": 1, "max_workers": 1}
    label = f"minimal-{name_of(children, prefetch)}"
    return OurSide("minimal", folder / label, {"workers": workers}, label)


def expected_seconds(rounds: int, schedule: Schedule) -> float:
    """How long the table takes: each row's platform is started once a round."""
    return rounds * len(SETTINGS) * (schedule.start + len(CELLS) * schedule.run)


def as_markdown(found: Mapping[tuple[int, int], Mapping[str, Sequence[Outcome]]], bounds: Bounds) -> str:
    """The table: median (range) over the rounds that nothing disturbed; a row with too few of them is NOISY and has no figure."""
    lines = [
        f"| children/prefetch | queries | {' | '.join(_FIGURES)} | rounds |",
        "|---|---|" + "---|" * (len(_FIGURES) + 1),
    ]
    for (children, prefetch), kinds in found.items():
        for kind, outcomes in kinds.items():
            clean = [it for it in outcomes if it.foreign <= bounds.foreign]
            shown: list[str] = []
            for figure in _FIGURES:
                values = median_and_range([it.figures[figure] for it in clean if figure in it.figures])
                stands = values is not None and len(clean) >= bounds.pairs
                shown.append(f"{values[0]:.3g} ({values[1]:.3g} to {values[2]:.3g})" if stands and values else "–")
            told = str(len(clean)) if len(clean) >= bounds.pairs else f"{len(clean)} of {len(outcomes)}: NOISY"
            lines.append(f"| {children}/{prefetch} | {kind} | {' | '.join(shown)} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the table and write it."""
    parser = argparse.ArgumentParser(prog="make bench-tuning", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", type=float, default=30.0, help="seconds of a run")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    console, schedule = Console(), Schedule(measure=arguments.measure)
    bounds = Bounds(pairs=min(3, arguments.rounds))
    console.print(f"about {expected_seconds(arguments.rounds, schedule) / 60:.0f} min")
    found: dict[tuple[int, int], dict[str, list[Outcome]]] = {setting: {kind: [] for kind in CELLS} for setting in SETTINGS}
    for number in range(arguments.rounds):
        for setting in SETTINGS:
            with ExitStack() as at_end:
                folder = Path(tempfile.mkdtemp(prefix="superset-async-tuning-"))
                at_end.callback(shutil.rmtree, folder, ignore_errors=True)
                side = side_of(*setting, folder)
                at_end.callback(side.stop)
                with console.status(f"start {side.name}"):
                    side.start()
                    first_answer(side)
                runs = Runs(side, None, schedule)
                for kind, cell in CELLS.items():
                    outcome = runs.run(side, parse(cell))
                    found[setting][kind].append(outcome)
                    rate, others = outcome.figures["queries/s"], outcome.foreign
                    console.print(
                        f"round {number + 1}, {name_of(*setting)}, {kind}: {rate:.1f} queries/s, {others:.0%} taken by others"
                    )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / "tuning.md"
    path.write_text(as_markdown(found, bounds), encoding="utf-8")
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
