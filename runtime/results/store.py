"""Envelopes in Redis, large ones in files: what every cache of Superset and its store of query results read and write."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from redis import Redis

from runtime.environment import counters, redis_databases, secrets
from runtime.environment.redis_clients import client
from runtime.results.envelope import Envelope, RefusedError, opened, signing_secret, size_when_inflated, wrap
from runtime.results.spill_files import Folder
from runtime.tenants.identity import current_tenant_id
from topology.model import Purpose, Topology
from topology.settings.caching import Caching

logger = logging.getLogger(__name__)

REFUSED = "superset_async_cache_refused_total"
TOO_LARGE = "superset_async_cache_too_large_total"
SPILLED = "superset_async_cache_spilled_total"
#: A process says in its log at most this often that it refused a value.
LOG_SECONDS = 60
#: Suffix of the key that says who computes a value anew before it is gone.
CLAIM = "~"


class TooLargeError(Exception):
    """A result larger than the stack allows; the message is for its user."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The result has more than {_megabytes(most)}, the most that is kept. Ask for fewer rows or columns, or aggregate. "
            "An administrator can raise caching.max_result in the stack."
        )


@dataclass(frozen=True)
class Found:
    """What a key has: its envelope, if any, and whether someone has taken it on to compute it anew."""

    envelope: Envelope | None
    claimed: bool


class Store:
    """The values of one purpose."""

    def __init__(self, client: Redis[bytes], purpose: Purpose, prefix: str, secret: bytes, caching: Caching) -> None:
        self.client = client
        self.prefix = prefix
        self._purpose: Purpose = purpose
        self._secret = secret
        self._caching = caching
        self._folder = Folder(Path(caching.spill.folder) / purpose) if caching.spill else None
        self._said = 0.0
        self._lock = threading.Lock()

    def key(self, key: str) -> str:
        """The full name of `key` for the current user: tenants never have one name for two values."""
        return f"{self.prefix}@{current_tenant_id()}:{key}"

    def read(self, name: str) -> Envelope | None:
        """The envelope of the full name `name`; None where there is none, or one that is refused."""
        return self._opened(name, self.client.get(name))

    def find(self, name: str) -> Found:
        """The same in one round trip with whether it is claimed."""
        sealed, claim = self.client.mget(name, name + CLAIM)
        return Found(self._opened(name, sealed), claim is not None)

    def claim(self, name: str, seconds: float) -> bool:
        """Take on to compute `name` anew within `seconds`; False where another has."""
        return bool(self.client.set(name + CLAIM, b"1", nx=True, px=int(seconds * 1000)))

    def write(self, name: str, value: object, lifetime: float, kept: float, seconds: float) -> None:
        """Store `value` as `name`, to expire after `lifetime` seconds and be there for `kept`; it took `seconds`.

        TooLargeError where it is larger than the stack allows, redis-py's and OSError where it cannot be stored.
        """
        now = time.time()
        caching = self._caching
        envelope = wrap(
            value,
            computed=now - seconds,
            expires=now + lifetime,
            seconds=seconds,
            codec=caching.compression,
            above=caching.compress_above_bytes,
        )
        size = len(envelope.body)
        most = caching.max_result_bytes
        if (size_when_inflated(value, most) if isinstance(value, bytes) else envelope.plain_bytes) > most:
            counters.count(TOO_LARGE, cache=self._purpose)
            raise TooLargeError(most)
        sealed = envelope.sealed(self._secret, name)
        if self._folder and caching.spill and size > caching.spill.above_bytes:
            file = self._folder.write(name, sealed, kept)
            counters.count(SPILLED, cache=self._purpose)
            sealed = replace(envelope, kind="file", codec="none", body=file.encode()).sealed(self._secret, name)
        pipeline = self.client.pipeline(transaction=False)
        pipeline.set(name, sealed, px=max(1, int(kept * 1000)))
        pipeline.delete(name + CLAIM)
        pipeline.execute()

    def delete(self, *names: str) -> int:
        """Remove values; how many there were."""
        return int(self.client.delete(*names)) if names else 0

    def has(self, name: str) -> bool:
        """Whether there is something at `name`, signed or not."""
        return bool(self.client.exists(name))

    def _opened(self, name: str, sealed: bytes | None) -> Envelope | None:
        if sealed is None:
            return None
        try:
            envelope = opened(sealed, self._secret, name)
            if envelope.kind == "file":
                content = self._folder.read(envelope.body.decode()) if self._folder else None
                return None if content is None else opened(content, self._secret, name)
        except RefusedError as error:
            self._refuse(name, error)
            return None
        return envelope

    def _refuse(self, name: str, error: RefusedError) -> None:
        counters.count(REFUSED, cache=self._purpose)
        with self._lock:
            now = time.monotonic()
            if now < self._said + LOG_SECONDS and self._said:
                return
            self._said = now
        logger.warning(
            "a stored value was not used: %s is %s. After an upgrade or a new secret key that is expected once for each "
            "value; otherwise someone writes to this Redis (next warning after %d s; all are counted in %s)",
            name,
            error,
            LOG_SECONDS,
            REFUSED,
        )


def of(purpose: Purpose, topology: Topology, database: redis_databases.Database) -> Store:
    """The store of `purpose` on its `database`; the signing secret comes from this process's environment."""
    secret = signing_secret(secrets.read(topology, os.environ).secret_key, purpose)
    return Store(client(database), purpose, database.prefix, secret, topology.caching)


def tenants_lifetime(topology: Topology) -> int | None:
    """Seconds that the current user's tenant has its results kept; None where it says nothing."""
    current = current_tenant_id() if topology.tenants else ""
    return topology.tenant(current).result_ttl_seconds if current else None


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
