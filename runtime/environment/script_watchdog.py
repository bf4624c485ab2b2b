"""What ends a script that a Redis server does not get out of: a thread of Celery beat, as all of the stack's Redis users may.

While a script runs, a Redis or Valkey server does nothing else, and no setting bounds that. After
`topology.valkey_conf.SCRIPT_MS` it answers every command with BUSY, and takes SCRIPT KILL; within `EVERY_SECONDS` of that the
script is ended here. SCRIPT KILL does not end a script that has written: then only the server's end does, by a restart or by
SHUTDOWN NOSAVE as its operator; what the script had written is lost then, since it is in no append-only file before it has ended.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from runtime.environment import counters, redis_databases
from runtime.environment.redis_clients import client
from runtime.environment.secrets import Secrets
from topology import metric_names
from topology.model import Topology

logger = logging.getLogger(__name__)

#: Seconds between two questions to each server.
EVERY_SECONDS = 1.0


class Watchdog(threading.Thread):
    """Asks the servers, by their names and clients, until the process ends."""

    def __init__(self, servers: Sequence[tuple[str, Redis[bytes]]], every: float = EVERY_SECONDS) -> None:
        super().__init__(name="script-watchdog", daemon=True)
        self._servers = servers
        self._every = every
        self._ended = threading.Event()
        self._unkillable: set[str] = set()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def run(self) -> None:
        """Ask each server in turns: one that does not answer holds the others up for as long as its client waits."""
        while not self._ended.wait(self._every):
            for name, server in self._servers:
                try:
                    self.look(name, server)
                except Exception:
                    logger.warning("the scripts of %s could not be watched", name, exc_info=True)

    def look(self, name: str, server: Redis[bytes]) -> bool:
        """Ask the server, and end its script where it has one that does not end; whether it did."""
        try:
            server.ping()
        except ResponseError as error:
            if not str(error).startswith("BUSY"):
                raise
        except RedisError:
            # It is away, or is not busy for long enough yet: the next time.
            return False
        else:
            self._unkillable.discard(name)
            return False
        try:
            cast(Any, server).script_kill()
        except ResponseError as error:
            if not str(error).startswith("UNKILLABLE"):
                raise
            if name not in self._unkillable:
                self._unkillable.add(name)
                logger.error(  # noqa: TRY400 - its text says it
                    "a script that has written does not end on %s, and SCRIPT KILL does not end such a one: restart the server, "
                    "or SHUTDOWN NOSAVE as its operator",
                    name,
                )
            return False
        logger.error("a script did not end on %s, and was ended by SCRIPT KILL", name)
        counters.count(metric_names.REAPED, what="script")
        return True


def of(topology: Topology, secrets: Secrets) -> Watchdog:
    """The watchdog of the topology's servers."""
    found: list[tuple[str, Redis[bytes]]] = []
    for instance in topology.redis:
        asked = next(each for each in topology.redis_databases if each.instance == instance.name)
        database = redis_databases.database(topology, secrets, asked.purpose)
        # Of number 0 there is no SELECT, which a busy server does not answer.
        found.append((instance.name, client(redis_databases.numbered(database, 0))))
    return Watchdog(found)
