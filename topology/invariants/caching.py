"""Rules about results."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology
from topology.problems import Problem
from topology.quantities import format_memory
from topology.settings import Settings


def spilled_results_are_kept(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A result that is to be spilled must be one that is kept."""
    spill = settings.caching.spill
    if spill is not None and spill.above_bytes >= settings.caching.max_result_bytes:
        yield Problem(
            "caching.spill.above",
            format_memory(spill.above_bytes),
            f"must be less than caching.max_result ({format_memory(settings.caching.max_result_bytes)}): "
            "nothing would be spilled",
            "Raise caching.max_result or lower caching.spill.above",
            also=("caching.max_result",),
        )
