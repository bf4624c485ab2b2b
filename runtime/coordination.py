"""What processes of one stack tell each other through the broker's Redis: leases, registrations and counters.

It is a database of its own with a prefix, on the server that never evicts, and every key in it has an owner that removes it
or a lifetime. Names of the counters are those of metrics; the exporter serves them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from runtime.config import load_topology, redis, secrets
from runtime.config.objects import client as redis_client

logger = logging.getLogger(__name__)

#: The hash of all counters: field is the metric's name and its labels, as `field` writes them.
COUNTERS = "counters"
#: When the reaper last looked: seconds since the epoch.
REAPED_AT = "reaper:last"


@lru_cache(maxsize=1)
def client() -> Any:
    """redis-py's client of the coordination database of this process's topology (its pool survives a fork)."""
    return redis_client(_database())


@lru_cache(maxsize=1)
def _database() -> redis.Database:
    topology = load_topology(os.environ)
    return redis.database(topology, secrets.read(topology, os.environ), "coordination")


def reset() -> None:
    """Forget the client, in a process that was forked from one that may be using it."""
    client.cache_clear()
    _database.cache_clear()


def key(*parts: str) -> str:
    """The full name of a key: the database's prefix, and `parts` joined by colons."""
    return _database().prefix + ":".join(parts)


def field(name: str, labels: dict[str, str]) -> str:
    """A counter's field in the hash: JSON of its name and its sorted labels, so that equal ones are one field."""
    return json.dumps([name, labels], sort_keys=True, separators=(",", ":"))


def count(name: str, by: int = 1, **labels: str) -> None:
    """Add `by` to the counter `name` with `labels`. It never fails: what is counted is worth more than the count."""
    try:
        client().hincrby(key(COUNTERS), field(name, labels), by)
    except Exception:
        logger.warning("counter %s was not written", name, exc_info=True)


def count_all(increments: Iterable[tuple[str, float, dict[str, str]]]) -> None:
    """Add to several counters at once: name, by how much, labels. One way to Redis and back; it never fails either."""
    try:
        pipe = client().pipeline(transaction=False)
        for name, by, labels in increments:
            add = pipe.hincrby if isinstance(by, int) else pipe.hincrbyfloat
            add(key(COUNTERS), field(name, labels), by)
        pipe.execute()
    except Exception:
        logger.warning("counters were not written", exc_info=True)
