"""What Superset loads as its caches (CACHE_TYPE of flask-caching) and as RESULTS_BACKEND (an object of cachelib).

As shipped (flask-caching 2.3.1, cachelib 0.13) both unpickle whatever Redis has, and behind Sentinel the caches read from
replicas, which lag: a chart that a worker has just stored was not always found. Imported only inside Superset.

Replaces the classes that CACHE_TYPE and RESULTS_BACKEND name: `flask_caching.backends.base.BaseCache` is subclassed, and
Superset's `results_backend_manager` gets an object like cachelib's (read and tested with Superset 6.1.0 and flask-caching
2.3.1; no upstream issue known).
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_caching.backends.base import BaseCache
from redis.exceptions import RedisError

from runtime.environment import counters, redis_databases, secrets, versions
from runtime.environment.process_topology import load_topology, role
from runtime.queries import query_tasks
from runtime.results import single_flight, store
from runtime.results.buckets import BucketError
from runtime.results.envelope import Envelope
from runtime.results.lifetimes import Lifetimes, lifetime
from topology import metric_names
from topology.model import Purpose, Topology

logger = logging.getLogger(__name__)
versions.require(__name__, "apache-superset", "flask-caching")

#: What is computed from databases, so that many may want it anew at one time. The others keep what users did.
SPREAD: frozenset[Purpose] = frozenset({"metadata_cache", "data_cache"})
#: How long a web process's request has until a worker has taken its computation of a value that is due.
CLAIM_SECONDS = 30
#: How long a chart's browser has, once it was told that its data is ready, to fetch it however short it is kept.
FETCH_SECONDS = 60
#: What a web request keeps of its time to answer after it has waited.
ANSWER_SECONDS = 5


class Cache(BaseCache):
    """One of Superset's caches; `purpose` says which."""

    def __init__(self, topology: Topology, purpose: Purpose, kept: store.Store, default_timeout: int) -> None:
        BaseCache.__init__(self, default_timeout)
        self.key_prefix = kept.prefix
        self.store = kept
        self._topology = topology
        caching = topology.caching
        self._shared = caching.single_flight and purpose == "data_cache"
        self._lifetimes = Lifetimes(
            jitter_percent=caching.jitter_percent if purpose in SPREAD else 0,
            early_refresh=caching.early_refresh if self._shared else 0.0,
            stale_seconds=caching.stale_seconds if self._shared else 0,
            fetch_seconds=FETCH_SECONDS if self._shared else 0,
        )
        self._tenants = purpose in SPREAD
        self._patience = patience(topology, os.environ)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Cache:  # noqa: ARG003
        """What flask-caching calls; CACHE_ARGS has the purpose, and all else is the topology's."""
        (purpose,) = args
        topology = load_topology(os.environ)
        database = redis_databases.database(topology, secrets.read(topology, os.environ), purpose)
        return cls(topology, purpose, store.of(purpose, topology, database), int(config["CACHE_DEFAULT_TIMEOUT"]))

    def get(self, key: str) -> Any:
        """The value of `key` for the current user's tenant; None where there is none, or the caller shall compute it.

        In a `single_flight.scope` it waits for who computes it: FailedError with the other's failure, BusyError after too long.
        """
        name = self.store.key(key)
        scope = single_flight.current()
        if scope is None or not self._shared:
            found = self.store.read(name)
            return found.value if found and self._state(found) != "gone" else None
        if scope.probe:
            return self._probe(scope, name)
        return self._compute_once(scope, name)

    def get_many(self, *keys: str) -> list[Any]:
        """The values of `keys`."""
        return [self.get(key) for key in keys]

    def set(self, key: str, value: Any, timeout: int | None = None) -> bool:
        """Store `value`; None is no result, and not stored. Raises where it cannot be stored."""
        if value is None:
            self.delete(key)
            return True
        name = self.store.key(key)
        scope = single_flight.current() if self._shared else None
        tenants = store.tenants_lifetime() if self._tenants else None
        seconds = self._lifetimes.spread(lifetime(timeout, self.default_timeout, tenants), random.random())  # noqa: S311
        took = time.time() - scope.began if scope else 0.0
        try:
            self.store.write(name, value, seconds, self._lifetimes.kept(seconds), took)
        except Exception as error:
            if scope:
                scope.refused = _reason(error)
                scope.too_large = isinstance(error, store.TooLargeError)
            raise
        if scope and scope.flight and scope.flight.name == name:
            scope.end(single_flight.DONE)
        return True

    def add(self, key: str, value: Any, timeout: int | None = None) -> bool:
        """Store `value` unless there is one."""
        return not self.has(key) and self.set(key, value, timeout)

    def set_many(self, mapping: dict[str, Any], timeout: int | None = None) -> list[str]:
        """Store several values; the keys that were."""
        return [key for key, value in mapping.items() if self.set(key, value, timeout)]

    def delete(self, key: str) -> bool:
        """Remove a value; whether there was one."""
        return self.store.delete(self.store.key(key)) > 0

    def delete_many(self, *keys: str) -> list[str]:
        """Remove several; those that there were."""
        return [key for key in keys if self.delete(key)]

    def has(self, key: str) -> bool:
        """Whether there is a value."""
        return self.store.has(self.store.key(key))

    def clear(self) -> bool:
        """False: nothing was removed (`refuse_to_clear`)."""
        return refuse_to_clear(self.store)

    def _state(self, found: Envelope | None) -> str:
        return self._lifetimes.state(found, time.time(), random.random())  # noqa: S311

    def _probe(self, scope: single_flight.Scope, name: str) -> Any:
        found = self.store.find(name)
        state = self._state(found.envelope) if scope.may_refresh else "fresh"
        missed = found.envelope is None or state == "gone"
        counters.count(metric_names.CACHE_READS, cache="data_cache", result="miss" if missed else "hit")
        if missed:
            scope.missed = True
            return None
        if state == "due" and not found.claimed and self.store.claim(name, CLAIM_SECONDS):
            single_flight.refreshed()
            scope.missed = True
            return None
        return _value(found.envelope)

    def _compute_once(self, scope: single_flight.Scope, name: str) -> Any:
        found = self.store.find(name)
        state = self._state(found.envelope)
        if state == "fresh" and not found.claimed:
            return _value(found.envelope)
        try:
            if flight := single_flight.take(name, self._topology.celery.time_limit_seconds):
                if state != "gone" and not found.claimed:
                    single_flight.refreshed()
                return self._compute(scope, flight, found.envelope)
            if state != "gone":
                return _value(found.envelope)
            return None if scope.nested else self._wait(scope, name)
        except (single_flight.FailedError, single_flight.BusyError):
            raise
        except Exception:
            # The broker's server has the leases. Without it a chart is worth more than its sharing.
            logger.warning("no lease for a chart's data: it is computed without", exc_info=True)
            return None if state == "gone" else _value(found.envelope)

    def _compute(self, scope: single_flight.Scope, flight: single_flight.Flight, before: Envelope | None) -> Any:
        """Have the scope compute, unless the value was stored since `before` was read."""
        now = self.store.read(flight.name)
        if now is not None and (before is None or now.computed > before.computed):
            flight.end(single_flight.DONE)
            return now.value
        scope.flight = flight
        scope.began = time.time()
        return None

    def _wait(self, scope: single_flight.Scope, name: str) -> Any:
        deadline = time.monotonic() + self._patience
        single_flight.waited()
        while (left := deadline - time.monotonic()) > 0:
            outcome = single_flight.outcome(name, left)
            if outcome is None:
                continue
            if outcome.startswith(single_flight.FAILED):
                raise single_flight.FailedError(outcome.removeprefix(single_flight.FAILED).decode())
            if outcome == single_flight.ALONE:
                return None
            if (found := self.store.read(name)) is not None:
                single_flight.saved()
                return found.value
            if flight := single_flight.take(name, self._topology.celery.time_limit_seconds):
                return self._compute(scope, flight, None)
        raise single_flight.BusyError(
            f"The same chart is being computed for someone else, and was not ready within {self._patience:.0f} s. Try again "
            "in a moment: once it is ready it is served at once."
        )


class ResultStore:
    """The rows of SQL Lab's queries; keys are random, so nothing is shared, waited for or computed anew."""

    def __init__(self, kept: store.Values, default_timeout: int) -> None:
        self.default_timeout = default_timeout
        self.key_prefix = kept.prefix
        self.store = kept

    def get(self, key: str) -> Any:
        """The bytes of `key`, None where they are gone; an error that Superset answers with 503 where nobody can tell now."""
        try:
            found = self.store.read(self.store.key(key))
        except BucketError as error:
            # Its text has all that is known; a trace for each of the page's requests would bury it.
            logger.warning("a result could not be read: %s", error)
            raise _away(
                "The results of this query cannot be read now: their store does not answer. They are not lost; try again in a "
                "moment."
            ) from error
        return found.value if found else None

    def set(self, key: str, value: Any, timeout: int | None = None) -> bool:
        """Store a query's rows. Where they cannot be, its query fails with a message that says so (`unkept_results`)."""
        seconds = lifetime(timeout, self.default_timeout, store.tenants_lifetime())
        try:
            self.store.write(self.store.key(key), value, seconds, seconds, 0.0)
        except store.TooLargeError as error:
            raise _superset_error(str(error), "RESULT_TOO_LARGE_ERROR") from error
        except (RedisError, OSError, BucketError) as error:
            logger.warning("a result could not be stored: %s", error)
            raise _superset_error(query_tasks.READ_NOT_KEPT, "RESULTS_BACKEND_ERROR") from error
        return True

    def delete(self, key: str) -> bool:
        """Remove a query's rows; whether there were any, where the store says so."""
        return self.store.delete(self.store.key(key)) > 0

    def has(self, key: str) -> bool:
        """Whether there are rows."""
        return self.store.has(self.store.key(key))

    def clear(self) -> bool:
        """False: nothing was removed (`refuse_to_clear`)."""
        return refuse_to_clear(self.store)


def refuse_to_clear(kept: store.Values) -> bool:
    """What clearing a whole cache does: False, as flask-caching and cachelib say that nothing was removed, and a warning.

    No process of Superset's may list the keys of its Redis, which has those of all tenants; the server's operator may.
    """
    logger.warning(
        "the cache %s was not cleared: processes of Superset may not list its keys. Each value ends by itself; the operator of "
        "its Redis removes all at once: redis-cli --scan --pattern '%s*' | xargs redis-cli UNLINK",
        kept.prefix,
        kept.prefix,
    )
    return False


def results(database: redis_databases.Database) -> ResultStore:
    """RESULTS_BACKEND of this process: the stack's bucket, or else `database`."""
    topology = load_topology(os.environ)
    return ResultStore(store.of_results(topology, database), topology.caching.query_results_ttl_seconds)


def patience(topology: Topology, env: Mapping[str, str]) -> float:
    """Seconds that this process's requests or tasks may wait for another's computation."""
    if role(env) == "web":
        return max(1.0, topology.web.request_timeout_seconds - ANSWER_SECONDS)
    return max(1.0, topology.celery.soft_time_limit_seconds - ANSWER_SECONDS)


def _value(envelope: Envelope | None) -> Any:
    return None if envelope is None else envelope.value


def _reason(error: Exception) -> str:
    if isinstance(error, store.TooLargeError):
        return str(error)
    return "The result could not be stored, so that it cannot be fetched: the cache does not take it now. Try again later."


def _superset_error(message: str, error_type: str) -> Exception:
    """The exception with which Superset itself says that it does not keep a result (SQLLAB_PAYLOAD_MAX_MB)."""
    from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
    from superset.exceptions import SupersetErrorException

    found = SupersetError(message=message, error_type=SupersetErrorType[error_type], level=ErrorLevel.ERROR)
    return SupersetErrorException(found)


def _away(message: str) -> Exception:
    """The exception that Superset answers with 503, and with which it ends a query."""
    from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
    from superset.exceptions import SupersetErrorException

    found = SupersetError(message=message, error_type=SupersetErrorType.RESULTS_BACKEND_ERROR, level=ErrorLevel.ERROR)
    return SupersetErrorException(found, status=503)
