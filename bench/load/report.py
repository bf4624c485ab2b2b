"""A comparison as JSON, as Markdown and as plots; pure but for writing the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from bench.load import workloads
from bench.load.cells import WORKLOADS
from bench.load.comparison import CellResult
from bench.load.verdict import Bounds, Pair, Verdict, judge

SCHEMA = 1
#: Figures in the order of the tables; those that a run does not have are left out, and others follow by name.
_ORDER = ("queries/s", "P50 s", "P95 s", "P99 s", "CPU ms a query")
_WORDS = {"higher": "higher", "lower": "lower", "same": "no difference", "unsteady": "UNSTEADY", "noisy": "NOISY"}


@dataclass(frozen=True)
class Report:
    """Everything that a comparison has found. `other`: figures of one side each that are no runs' (cold start, bytes)."""

    a: str
    b: str
    sources: Mapping[str, str]
    command: str
    began: str
    took_seconds: float
    machine: Mapping[str, str]
    pairs: int
    bounds: Bounds
    cells: Sequence[CellResult]
    other: Mapping[str, Mapping[str, float]]


def verdicts(cell: CellResult, bounds: Bounds) -> dict[str, Verdict]:
    """What the pairs of a cell say, by figure; only figures that every run of both sides has."""
    runs = [*cell.a, *cell.b]
    if not runs:
        return {}
    common = {name for name in runs[0].figures if all(name in run.figures for run in runs)}
    rest = sorted(common - set(_ORDER))
    return {
        name: judge(
            [Pair(a.figures[name], b.figures[name], max(a.foreign, b.foreign)) for a, b in zip(cell.a, cell.b, strict=True)],
            bounds,
        )
        for name in (*(it for it in _ORDER if it in common), *rest)
    }


def as_json(report: Report) -> str:
    """The whole report, with every run, for programs: `cells[].verdicts.<figure>.ratio` is what a baseline is compared by."""
    content: dict[str, Any] = asdict(report) | {"schema": SCHEMA}
    for written, cell in zip(cast(list[dict[str, Any]], content["cells"]), report.cells, strict=True):
        written["name"] = cell.cell.name
        written["verdicts"] = {name: asdict(it) for name, it in verdicts(cell, report.bounds).items()}
    return json.dumps(content, indent=1) + "\n"


def as_markdown(report: Report) -> str:
    """Tables for people: a figure that its bounds do not accept has no ratio, only the word for why."""
    lines = [
        f"# {report.a} against {report.b}",
        "",
        f"`{report.command}`, {report.began} UTC, {report.took_seconds / 60:.0f} min; {report.pairs} pairs a cell, A and B in "
        f"turns. Median (smallest to largest). A figure stands where at least {report.bounds.pairs} pairs ran with at most "
        f"{report.bounds.foreign:.0%} of the machine's processor time taken by others, and the range of the pairs' ratios "
        f"is at most {report.bounds.spread:.0%} of their median; otherwise it is NOISY or UNSTEADY, and no result.",
        "",
        *(f"- **{side}**: {source}" for side, source in report.sources.items()),
        *(f"- {name}: {value}" for name, value in report.machine.items()),
        f"- medium and large durations are the article's divided by {workloads.SCALE}",
        "- push: neither side has one (6.1's websocket server is a Node program of its own)",
        "",
    ]
    for cell in report.cells:
        lines += _cell(report, cell)
    if report.other:
        names = sorted({name for figures in report.other.values() for name in figures})
        lines += ["## Once a side", "", f"| figure | {' | '.join(report.other)} |", "|---|" + "---|" * len(report.other)]
        for name in names:
            shown = [f"{figures[name]:.3g}" if name in figures else "–" for figures in report.other.values()]
            lines.append(f"| {name} | {' | '.join(shown)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(report: Report, cell: CellResult) -> list[str]:
    found = verdicts(cell, report.bounds)
    foreign = [f"{max(a.foreign, b.foreign):.0%}" for a, b in zip(cell.a, cell.b, strict=True)]
    lines = [
        f"## {cell.cell.name}",
        "",
        f"{WORKLOADS[cell.cell.workload]}. Taken by others, pair by pair: {', '.join(foreign) or 'none ran'}.",
        "",
        f"| figure | {report.a} | {report.b} | {report.b} / {report.a} | |",
        "|---|---|---|---|---|",
    ]
    for name, verdict in found.items():
        ratio = _range(verdict.ratio) if verdict.stands else "–"
        lines.append(f"| {name} | {_range(verdict.a)} | {_range(verdict.b)} | {ratio} | {_WORDS[verdict.finding]} |")
    for kind in ("statements", "commands"):
        tiers = sorted({tier for of in cell.counted.values() for tier in of[kind]})
        label = "SQL statements a query" if kind == "statements" else "Redis commands a query"
        for tier in tiers:
            values = [cell.counted.get(side, {}).get(kind, {}).get(tier) for side in (report.a, report.b)]
            shown = ["–" if value is None else f"{value:g}" for value in values]
            lines.append(f"| {label}, {tier} | {shown[0]} | {shown[1]} | | counted |")
    for side, runs in ((report.a, cell.a), (report.b, cell.b)):
        errors: dict[str, int] = {}
        for run in runs:
            for name, number in run.errors.items():
                errors[name] = errors.get(name, 0) + number
        if errors:
            told = ", ".join(f"{name} {number}" for name, number in sorted(errors.items()))
            lines.append(f"\nErrors of {side}: {told}.")
    return [*lines, ""]


def _range(figures: tuple[float, float, float] | None) -> str:
    return f"{figures[0]:.3g} ({figures[1]:.3g} to {figures[2]:.3g})" if figures else "–"


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json, report.md and a plot for each of the main figures below `folder`; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "report.json", folder / "report.md"]
    written[0].write_text(as_json(report), encoding="utf-8")
    written[1].write_text(as_markdown(report), encoding="utf-8")
    for name in ("queries/s", "P95 s", "CPU ms a query"):
        if (path := _plot(report, name, folder)) is not None:
            written.append(path)
    return written


def _plot(report: Report, figure: str, folder: Path) -> Path | None:
    from matplotlib.figure import Figure

    rows = [(cell, verdict) for cell in report.cells if (verdict := verdicts(cell, report.bounds).get(figure)) is not None]
    if not rows:
        return None
    # matplotlib's own types are partly unknown.
    drawing: Any = Figure(figsize=(9, 0.6 * len(rows) + 1.6), layout="constrained")
    axes: Any = drawing.subplots()
    for place, (cell, verdict) in enumerate(rows):
        for runs, colour, shift in ((cell.a, "tab:gray", -0.15), (cell.b, "tab:blue", 0.15)):
            values = [run.figures[figure] for run in runs if figure in run.figures]
            axes.plot(values, [place + shift] * len(values), "o", color=colour, alpha=0.7)
        if not verdict.stands:
            axes.text(1.01, place, _WORDS[verdict.finding], transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [cell.cell.name for cell, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(figure)
    axes.set_xlim(left=0)
    axes.set_title(f"{report.a} (grey), {report.b} (blue): every run", fontsize=9)
    path = folder / f"{figure.replace('/', '-per-').replace(' ', '-').lower()}.svg"
    drawing.savefig(path)
    return path
