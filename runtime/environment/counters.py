"""Counters that all processes of a stack share, in the coordination database. Their names are those of metrics; the exporter
serves them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence

from runtime.environment.coordination import client, key

logger = logging.getLogger(__name__)

#: The hash of all counters: field is the metric's name and its labels, as `field` writes them.
COUNTERS = "counters"


def field(name: str, labels: dict[str, str]) -> str:
    """A counter's field in the hash: JSON of its name and its sorted labels, so that equal ones are one field."""
    return json.dumps([name, labels], sort_keys=True, separators=(",", ":"))


def count(name: str, by: int = 1, **labels: str) -> None:
    """Add `by` to the counter `name` with `labels`. It never fails: what is counted is worth more than the count."""
    try:
        client().hincrby(key(COUNTERS), field(name, labels), by)
    except Exception:
        logger.warning("counter %s was not written", name, exc_info=True)


def observation(
    name: str, value: float, bounds: Sequence[float], labels: dict[str, str]
) -> list[tuple[str, float, dict[str, str]]]:
    """What `value` adds to the histogram `name` with these upper bounds: cumulative buckets, as Prometheus reads them."""
    buckets = [f"{bound:g}" for bound in bounds if value <= bound]
    return [
        *((f"{name}_bucket", 1, {**labels, "le": bound}) for bound in (*buckets, "+Inf")),
        (f"{name}_sum", float(value), labels),
        (f"{name}_count", 1, labels),
    ]


def count_all(increments: Iterable[tuple[str, float, dict[str, str]]]) -> None:
    """Add to several counters at once: name, by how much, labels. One way to Redis and back; it never fails either."""
    try:
        pipe = client().pipeline(transaction=False)
        for name, by, labels in increments:
            if isinstance(by, int):
                pipe.hincrby(key(COUNTERS), field(name, labels), by)
            else:
                pipe.hincrbyfloat(key(COUNTERS), field(name, labels), by)
        pipe.execute()
    except Exception:
        logger.warning("counters were not written", exc_info=True)
