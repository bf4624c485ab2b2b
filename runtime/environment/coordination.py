"""What processes of one stack tell each other through the broker's Redis: leases, registrations and counters.

It is a database of its own with a prefix, on the server that never evicts, and every key in it has an owner that removes it
or a lifetime.
"""

from __future__ import annotations

import os
from functools import lru_cache

from redis import Redis

from runtime.environment import process_topology, redis_databases, secrets
from runtime.environment.redis_clients import client as redis_client

#: When the reaper last swept: seconds since the epoch.
REAPED_AT = "reaper:last"
#: When the reaper first swept with this database: seconds since the epoch. Whether it survives a restart of the server is
#: evidence of what does.
MARKED_AT = "reaper:first"
#: The age, in seconds, of the query that ran for longest when it did.
OLDEST_RUNNING = "reaper:oldest"


@lru_cache(maxsize=1)
def client() -> Redis[bytes]:
    """redis-py's client of the coordination database of this process's topology (its pool survives a fork)."""
    return redis_client(_database())


@lru_cache(maxsize=1)
def _database() -> redis_databases.Database:
    topology = process_topology.started()
    return redis_databases.database(topology, secrets.read(topology, os.environ), "coordination")


def reset() -> None:
    """Forget the client, in a process that was forked from one that may be using it."""
    client.cache_clear()
    _database.cache_clear()


def key(*parts: str) -> str:
    """The full name of a key: the database's prefix, and `parts` joined by colons."""
    return _database().prefix + ":".join(parts)
