"""Superset's own metrics: what it would tell StatsD, counted with everything else that the stack's processes count.

Superset's setting STATS_LOGGER; leans on `BaseStatsLogger` (read and tested with 6.1.0; no upstream issue known). A logger of a
team's own is told the same (`runtime.config.own`). Imported only inside Superset, while it reads its configuration.
"""

from __future__ import annotations

from superset.stats_logger import BaseStatsLogger

from runtime.environment.counters import count_later
from topology import metric_names

#: Names that a process tells apart; Superset 6.1 has some 600, all written in its source. The rest are counted as `OTHER`.
MOST_NAMES = 1000
OTHER = "other"


class StatsLogger(BaseStatsLogger):
    """Superset's logger: events, and how long something took."""

    def __init__(self) -> None:
        super().__init__(prefix="")
        self._names: set[str] = set()

    def incr(self, key: str) -> None:
        """Count an event."""
        self._count(key, 1)

    def decr(self, key: str) -> None:
        """Take one back: Superset 6.1 never does."""
        self._count(key, -1)

    def gauge(self, key: str, value: float) -> None:  # noqa: ARG002 - as its base class has it
        """Count an event: Superset's gauges are marks, always 1, that a report was sent or was not."""
        self._count(key, 1)

    def timing(self, key: str, value: float) -> None:
        """Count that something took `value` milliseconds."""
        labels = {"name": self._bounded(key)}
        # Clocks of two machines: a query may seem to have begun before it was sent.
        seconds = max(0.0, float(value) / 1000)
        names = metric_names.STATS_SECONDS
        count_later([(f"{names}_sum", seconds, labels), (f"{names}_count", 1, labels)])

    def _count(self, key: str, by: int) -> None:
        count_later([(metric_names.STATS, by, {"name": self._bounded(key)})])

    def _bounded(self, key: str) -> str:
        if key not in self._names and len(self._names) >= MOST_NAMES:
            return OTHER
        self._names.add(key)
        return key
