"""Single flight: of identical computations in all processes of a stack, one runs, and the others wait for what it gives.

The one has a lease in the coordination database, renewed by a thread while it computes. It ends the lease with an outcome,
which wakes all who wait at once. When its process dies, one who waits in the same container sees it and wakes the others, in
all containers; where nobody can see it, the lease ends by itself. Then one of them takes over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from runtime.environment import coordination, counters
from runtime.results import process_liveness
from topology import metric_names

logger = logging.getLogger(__name__)

#: A process that died, and that nobody sees, is found out after this long.
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.0
#: How long an outcome is there for those who have not asked for it yet.
OUTCOME_SECONDS = 60
#: One blocking call to Redis, and how often one who waits looks for the holder: shorter than a client's socket timeout.
SLICE_SECONDS = 0.5

#: Outcomes. DONE: the value is stored. ALONE: there is one that could not be stored, so each computes for itself. AGAIN: it
#: was not computed, someone else should try. FAILED is followed by the message of the failure, which all who wait share.
DONE, ALONE, AGAIN, FAILED = b"done", b"alone", b"again", b"failed:"

_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_END = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
"""


class FailedError(Exception):
    """The computation that this one waited for failed; the message is the other's own."""


class BusyError(Exception):
    """Nobody has computed the value in the time that this caller may wait; the message is for the user."""


@dataclass(frozen=True)
class Lease:
    """The right to compute what `name` is, until `token` is not its value any more."""

    name: str
    token: str

    @property
    def key(self) -> str:
        """The key that has the token while the lease lives."""
        return _key(self.name)

    @property
    def holder(self) -> str:
        """The name of the process that took it (`processes`)."""
        return self.token.partition(" ")[0]

    @property
    def outcome(self) -> str:
        """The key in which the outcome is told."""
        return coordination.key("flown", self.token)

    def renew(self) -> None:
        """Hold it for LEASE_SECONDS from now, unless it was lost."""
        coordination.client().eval(_RENEW, 1, self.key, self.token, int(LEASE_SECONDS * 1000))

    def end(self, outcome: bytes) -> None:
        """Give it up with `outcome`: its holder, once, or who saw the holder's death.

        It never fails: without Redis the lease ends by itself.
        """
        _keeper.drop(self)
        try:
            coordination.client().eval(_END, 2, self.key, self.outcome, self.token, outcome, OUTCOME_SECONDS * 1000)
        except Exception:
            logger.warning("the lease of %s was not given up, it ends in %s s", self.name, LEASE_SECONDS, exc_info=True)


def take(name: str, most_seconds: float) -> Lease | None:
    """The lease of `name`, renewed for at most `most_seconds`; None where another has it."""
    lease = Lease(name, f"{process_liveness.name()} {uuid.uuid4().hex}")
    if not coordination.client().set(lease.key, lease.token, nx=True, px=int(LEASE_SECONDS * 1000)):
        return None
    _keeper.keep(lease, most_seconds)
    return lease


def outcome(name: str, seconds: float) -> bytes | None:
    """What came of the computation of `name` that is under way, for which it waits `seconds` (one blocking call) at most.

    None where there is none yet, AGAIN where nobody computes.
    """
    client = coordination.client()
    token = client.get(_key(name))
    if token is None:
        return AGAIN
    lease = Lease(name, token.decode())
    if process_liveness.has_ended(lease.holder):
        lease.end(AGAIN)
        return AGAIN
    # Moved from the list to itself: it wakes the next one who waits, and is still there for who comes later.
    return cast("bytes | None", client.blmove(lease.outcome, lease.outcome, min(seconds, SLICE_SECONDS)))


def waited() -> None:
    """Count a computation that waits for another's."""
    counters.count(metric_names.CACHE_WAITED)


def saved() -> None:
    """Count a computation that another's has made needless."""
    counters.count(metric_names.CACHE_SAVED)


def refreshed() -> None:
    """Count a value that is computed anew while it can still be served."""
    counters.count(metric_names.CACHE_REFRESHED)


def _key(name: str) -> str:
    return coordination.key("flight", name)


class _Keeper:
    """Renews this process's leases in one thread, which lives while there are any."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Have none: after a fork they are the parent's, and so is the thread."""
        self._until: dict[Lease, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, lease: Lease, seconds: float) -> None:
        with self._lock:
            self._until[lease] = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cache-leases", daemon=True)
                self._thread.start()

    def drop(self, lease: Lease) -> None:
        with self._lock:
            self._until.pop(lease, None)

    def _run(self) -> None:
        while True:
            time.sleep(RENEW_SECONDS)
            with self._lock:
                now = time.monotonic()
                self._until = {lease: until for lease, until in self._until.items() if until > now}
                leases = list(self._until)
                if not leases:
                    self._thread = None
                    return
            for lease in leases:
                with contextlib.suppress(Exception):
                    lease.renew()


_keeper = _Keeper()


os.register_at_fork(after_in_child=_keeper.forget)


@dataclass
class Scope:
    """One computation of one chart's data, from its look into the cache to its result or failure.

    `probe`: it only looks; it neither waits nor computes. `may_refresh`: a probe may be told that there is nothing, so that
    its request has the value computed anew. `nested`: it is part of one that others may wait for.
    """

    probe: bool
    may_refresh: bool
    nested: bool
    began: float = field(default_factory=time.time)
    lease: Lease | None = None
    missed: bool = False
    #: Why the value was not stored, for its user; and whether nobody shall have it then.
    refused: str | None = None
    too_large: bool = False

    @property
    def waited_for(self) -> bool:
        """Whether others may wait for it: then nothing inside it waits, so that no two wait for each other."""
        return self.lease is not None or self.nested

    def end(self, outcome: bytes) -> None:
        """Give the lease up, if there is one."""
        lease, self.lease = self.lease, None
        if lease:
            lease.end(outcome)


_scope: ContextVar[Scope | None] = ContextVar("scope", default=None)


def current() -> Scope | None:
    """The computation that this thread is in."""
    return _scope.get()


@contextlib.contextmanager
def scope(*, probe: bool, may_refresh: bool) -> Generator[Scope]:
    """A computation; what it leaves undone is given up, so that another may do it."""
    around = _scope.get()
    this = Scope(probe=probe, may_refresh=may_refresh, nested=around is not None and around.waited_for)
    token: Any = _scope.set(this)
    try:
        yield this
    finally:
        _scope.reset(token)
        this.end(AGAIN)
