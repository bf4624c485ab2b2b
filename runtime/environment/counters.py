"""Counters that all processes of a stack share, in the coordination database. Their names are those of metrics; the exporter
serves them.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
from collections.abc import Iterable, Sequence

from runtime.environment.batches import Batches
from runtime.environment.coordination import client, key

logger = logging.getLogger(__name__)

#: The hash of all counters: field is the metric's name and its labels, as `field` writes them.
COUNTERS = "counters"
#: Between two batches of what is counted later, and how many counters a process holds of it at most.
EVERY_SECONDS, MOST = 5.0, 5000


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
        _add([(field(name, labels), by) for name, by, labels in increments])
    except Exception:
        logger.warning("counters were not written", exc_info=True)


def _add(sums: Sequence[tuple[str, float]], *, all_or_none: bool = False) -> None:
    """Add to counters by their field; RedisError where it is not said that all were."""
    pipe = client().pipeline(transaction=all_or_none)
    for name, by in sums:
        if isinstance(by, int):
            pipe.hincrby(key(COUNTERS), name, by)
        else:
            pipe.hincrbyfloat(key(COUNTERS), name, by)
    pipe.execute()


def merged(sums: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same additions with one for each field."""
    total: dict[str, float] = {}
    for name, by in sums:
        total[name] = total.get(name, 0) + by
    return list(total.items())


def _write(sums: Sequence[tuple[str, float]]) -> None:
    # They are written again where this fails: none may be there already.
    _add(merged(sums), all_or_none=True)


#: Additions of this process that are many and may come late (a request of the web tier makes about 15): written together, and
#: again where the database was away. A process that is killed loses those of its last seconds.
later = Batches("counters", _write, EVERY_SECONDS, most=MOST, merge=merged)
os.register_at_fork(after_in_child=later.forget)
atexit.register(later.flush)


def count_later(increments: Iterable[tuple[str, float, dict[str, str]]]) -> None:
    """Add to several counters within `EVERY_SECONDS`, without waiting for Redis. It never fails."""
    later.add([(field(name, labels), by) for name, by, labels in increments])
