"""`make bench-quick`: the ratios of two cells, in three minutes, against those of a stored run.

A ratio of two sides that ran in turns on one machine is much the same on another: so a change that makes this project dearer
shows here, on any machine, long before a whole comparison. It is no result: one pair, and a wide tolerance.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.load import __main__ as comparison
from bench.load.comparison import MORE_IS_BETTER
from local.state import PROJECT

#: The stored ratios, B divided by A: by cell, then by figure.
BASELINE = PROJECT / "docs/benchmarks/quick-baseline.json"
#: A ratio may be worse by this share: one pair on a busy machine differs by as much.
TOLERANCE = 0.4
FIGURES = ("queries/s", "P50 s", "CPU ms a query")
ARGUMENTS = ("quick", "--pairs", "1", "--measure", "15", "--folder", "build/bench-quick")

Ratios = Mapping[str, Mapping[str, float]]


def ratios(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The ratios of the last pair of each cell of a report, as `bench.load.report` writes it."""
    found: dict[str, dict[str, float]] = {}
    for cell in report["cells"]:
        a, b = cell["a"][-1]["figures"], cell["b"][-1]["figures"]
        found[str(cell["name"])] = {name: b[name] / a[name] for name in FIGURES if a.get(name) and name in b}
    return found


def worse(baseline: Ratios, measured: Ratios, tolerance: float = TOLERANCE) -> list[str]:
    """What is worse than the baseline by more than `tolerance`, each as a sentence. A figure that one of them has not is none."""
    found: list[str] = []
    for cell, figures in baseline.items():
        for name, before in figures.items():
            now = measured.get(cell, {}).get(name)
            if now is None:
                continue
            share = before / now - 1 if name in MORE_IS_BETTER else now / before - 1
            if share > tolerance:
                found.append(f"{cell}, {name}: {now:.2f} times the other side, and {before:.2f} when it was stored")
    return found


def main() -> int:
    """Measure and compare; 1 where something is worse than when it was stored."""
    sys.argv[1:] = [*ARGUMENTS, *sys.argv[1:]]
    # 2 is that one pair is no result.
    if comparison.main() not in (0, 2):
        return 1
    measured = ratios(json.loads(Path("build/bench-quick/report.json").read_text(encoding="utf-8")))
    for cell, figures in measured.items():
        print(f"{cell}: " + ", ".join(f"{name} {value:.2f} times" for name, value in figures.items()))
    found = worse(json.loads(BASELINE.read_text(encoding="utf-8")), measured)
    print("\n".join(found) or f"nothing is worse than in {BASELINE.relative_to(PROJECT)} by more than {TOLERANCE:.0%}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
