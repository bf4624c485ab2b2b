"""Envelopes in Redis, large ones in files, or all in a bucket: what Superset's caches and its store of results use."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from redis import Redis

from runtime.environment import counters, redis_databases, secrets
from runtime.environment.redis_clients import client
from runtime.results.buckets import Bucket
from runtime.results.envelope import (
    OVERHEAD_BYTES,
    Envelope,
    RefusedError,
    opened,
    signing_secret,
    size_when_inflated,
    wrap,
)
from runtime.results.spill_files import Folder
from runtime.tenants.identity import current_tenant, current_tenant_id
from topology import metric_names
from topology.histograms import RESULT_BUCKETS
from topology.model import Purpose, Topology
from topology.settings.caching import Caching

logger = logging.getLogger(__name__)

#: Whose reads and writes are timed: what users wait for. The others are read several times a request.
TIMED: frozenset[Purpose] = frozenset({"query_results", "data_cache"})
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


class Values(Protocol):
    """The values of one purpose, wherever they are kept. Names are those that `key` gives."""

    @property
    def prefix(self) -> str:
        """What every name begins with."""
        ...

    def key(self, key: str) -> str:
        """The full name of `key`. That of a cache depends on the current user: tenants never have one name for two values.

        That of SQL Lab's rows depends on nobody: their key is random and stands in the query's row, and who may read that
        query reads these rows, whatever the tenant of either was or is.
        """
        ...

    def read(self, name: str) -> Envelope | None:
        """The envelope of `name`; None where there is none, or one that is refused."""
        ...

    def write(self, name: str, value: object, lifetime: float, kept: float, seconds: float) -> None:
        """Store `value` as `name`, to expire after `lifetime` seconds and be there for `kept`; it took `seconds`.

        TooLargeError where it is larger than the stack allows, the store's own errors where it cannot be stored.
        """
        ...

    def delete(self, *names: str) -> int:
        """Remove values; how many there were."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a value."""
        ...


class _Sealed:
    """What a value's store has in common: names, limits, and envelopes that are signed and checked."""

    def __init__(self, purpose: Purpose, prefix: str, secret: bytes, caching: Caching) -> None:
        self.prefix = prefix
        self._purpose: Purpose = purpose
        self._secret = secret
        self._caching = caching
        self._said = 0.0
        self._lock = threading.Lock()

    def key(self, key: str) -> str:
        """See `Values`."""
        return f"{self.prefix}{key}" if self._purpose == "query_results" else f"{self.prefix}@{current_tenant_id()}:{key}"

    def _wrapped(self, value: object, lifetime: float, seconds: float) -> Envelope:
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
        most = caching.max_result_bytes
        if (size_when_inflated(value, most) if isinstance(value, bytes) else envelope.plain_bytes) > most:
            counters.count(metric_names.CACHE_TOO_LARGE, cache=self._purpose)
            raise TooLargeError(most)
        return envelope

    @contextlib.contextmanager
    def _timed(self, operation: Literal["read", "write"]) -> Generator[None]:
        """Count how long the block took, or that it failed, where this is the store of what users wait for."""
        labels: dict[str, str] = {"cache": self._purpose, "operation": operation}
        began = time.monotonic()
        try:
            yield
        except Exception:
            if self._purpose in TIMED:
                counters.count_all([(metric_names.RESULTS_FAILED, 1, labels)])
            raise
        if self._purpose in TIMED:
            seconds = time.monotonic() - began
            counters.count_all(counters.observation(metric_names.RESULTS_SECONDS, seconds, RESULT_BUCKETS, labels))

    def _refuse(self, name: str, error: RefusedError) -> None:
        counters.count(metric_names.CACHE_REFUSED, cache=self._purpose)
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
            metric_names.CACHE_REFUSED,
        )


class Store(_Sealed):
    """The values of one purpose in Redis."""

    def __init__(self, client: Redis[bytes], purpose: Purpose, prefix: str, secret: bytes, caching: Caching) -> None:
        super().__init__(purpose, prefix, secret, caching)
        self.client = client
        self._folder = Folder(Path(caching.spill.folder) / purpose) if caching.spill else None

    def read(self, name: str) -> Envelope | None:
        """The envelope of the full name `name`; None where there is none, or one that is refused."""
        with self._timed("read"):
            sealed = self.client.get(name)
        return self._opened(name, sealed)

    def find(self, name: str) -> Found:
        """The same in one round trip with whether it is claimed."""
        with self._timed("read"):
            sealed, claim = self.client.mget(name, name + CLAIM)
        return Found(self._opened(name, sealed), claim is not None)

    def claim(self, name: str, seconds: float) -> bool:
        """Take on to compute `name` anew within `seconds`; False where another has."""
        return bool(self.client.set(name + CLAIM, b"1", nx=True, px=int(seconds * 1000)))

    def write(self, name: str, value: object, lifetime: float, kept: float, seconds: float) -> None:
        """Store `value` as `name`, to expire after `lifetime` seconds and be there for `kept`; it took `seconds`.

        TooLargeError where it is larger than the stack allows, redis-py's and OSError where it cannot be stored.
        """
        envelope = self._wrapped(value, lifetime, seconds)
        caching, size = self._caching, len(envelope.body)
        sealed = envelope.sealed(self._secret, name)
        with self._timed("write"):
            if self._folder and caching.spill and size > caching.spill.above_bytes:
                file = self._folder.write(name, sealed, kept)
                counters.count(metric_names.CACHE_SPILLED, cache=self._purpose)
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


class BucketStore(_Sealed):
    """The values of one purpose in a bucket. An object outlives its value: the envelope says when that ends, to the second."""

    def __init__(self, bucket: Bucket, purpose: Purpose, prefix: str, secret: bytes, caching: Caching) -> None:
        super().__init__(purpose, prefix, secret, caching)
        self._bucket = bucket

    def read(self, name: str) -> Envelope | None:
        """See `Values`; BucketError where the bucket cannot be read."""
        with self._timed("read"):
            sealed = self._bucket.get(name)
        if sealed is None:
            return None
        try:
            envelope = opened(sealed, self._secret, name)
        except RefusedError as error:
            self._refuse(name, error)
            return None
        return envelope if time.time() < envelope.expires else None

    def write(self, name: str, value: object, lifetime: float, kept: float, seconds: float) -> None:  # noqa: ARG002
        """See `Values`; the bucket's own rule ends what is kept. BucketError where it cannot be stored."""
        sealed = self._wrapped(value, lifetime, seconds).sealed(self._secret, name)
        with self._timed("write"):
            self._bucket.put(name, sealed)

    def delete(self, *names: str) -> int:
        """See `Values`; S3 does not say whether there was one."""
        for name in names:
            self._bucket.delete(name)
        return len(names)

    def has(self, name: str) -> bool:
        """See `Values`: one that has ended is none."""
        return self.read(name) is not None


def of(purpose: Purpose, topology: Topology, database: redis_databases.Database) -> Store:
    """The store of `purpose` on its `database`; the signing secret comes from this process's environment."""
    return Store(client(database), purpose, database.prefix, _secret(topology, purpose), topology.caching)


def of_results(topology: Topology, database: redis_databases.Database) -> Values:
    """The store of SQL Lab's rows: the stack's bucket, or else their `database`."""
    caching, purpose = topology.caching, "query_results"
    if caching.bucket is None:
        return of(purpose, topology, database)
    bucket = Bucket(caching.bucket, purpose, caching.max_result_bytes + OVERHEAD_BYTES)
    return BucketStore(bucket, purpose, database.prefix, _secret(topology, purpose), caching)


def _secret(topology: Topology, purpose: Purpose) -> bytes:
    return signing_secret(secrets.read(topology, os.environ).secret_key, purpose)


def tenants_lifetime() -> int | None:
    """Seconds that the current user's tenant has its results kept now; None where it says nothing."""
    tenant = current_tenant()
    return tenant.result_ttl_seconds if tenant else None


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
