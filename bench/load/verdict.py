"""What pairs of runs say: a ratio with its range, or that the machine was too noisy to say anything. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: `noisy`: too few pairs ran undisturbed. `unsteady`: the ratio's own range is too wide. `same`: the range holds 1.
Finding = Literal["higher", "lower", "same", "unsteady", "noisy"]


@dataclass(frozen=True)
class Bounds:
    """What a figure must hold to be called one.

    `foreign`: the share of the machine's processor time, in a run, that neither side nor the load itself took.
    `spread`: the range of the pairs' ratios, divided by their median. `pairs`: undisturbed pairs that there must be.
    """

    foreign: float = 0.05
    spread: float = 0.5
    pairs: int = 5


@dataclass(frozen=True)
class Pair:
    """A figure of A and of B, one run after the other, and the larger foreign share of the two."""

    a: float
    b: float
    foreign: float


@dataclass(frozen=True)
class Verdict:
    """Medians and ranges over the undisturbed pairs; None where there is none. `ratio` is B divided by A, pair by pair."""

    finding: Finding
    pairs: int
    disturbed: int
    a: tuple[float, float, float] | None
    b: tuple[float, float, float] | None
    ratio: tuple[float, float, float] | None

    @property
    def stands(self) -> bool:
        """Whether the figures may be stated."""
        return self.finding not in ("noisy", "unsteady")


def median_and_range(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Median, smallest and largest; None without any."""
    return (statistics.median(values), min(values), max(values)) if values else None


def judge(pairs: Sequence[Pair], bounds: Bounds) -> Verdict:
    """What `pairs` of one figure say under `bounds`. A pair in which A is 0 has no ratio, and counts as disturbed."""
    clean = [pair for pair in pairs if pair.foreign <= bounds.foreign and pair.a > 0]
    disturbed = len(pairs) - len(clean)
    ratio = median_and_range([pair.b / pair.a for pair in clean])
    finding: Finding
    if ratio is None or len(clean) < bounds.pairs:
        finding = "noisy"
    elif ratio[2] - ratio[1] > bounds.spread * ratio[0]:
        finding = "unsteady"
    elif ratio[1] <= 1 <= ratio[2]:
        finding = "same"
    else:
        finding = "higher" if ratio[1] > 1 else "lower"
    return Verdict(
        finding,
        len(clean),
        disturbed,
        median_and_range([pair.a for pair in clean]),
        median_and_range([pair.b for pair in clean]),
        ratio,
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of `values` do not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
