"""Single flight: of identical computations in all processes of a stack, one runs, and the others wait for what it gives.

The one has a lease (`runtime.environment.leases`). It ends with an outcome, which wakes all who wait at once. When its process
dies, one who waits in the same container sees it and wakes the others, in all containers; where nobody can see it, the lease
ends by itself. Then one of them takes over.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from runtime.environment import coordination, counters, leases
from runtime.environment.leases import Lease
from runtime.environment.redis_clients import text
from runtime.results import process_liveness
from topology import metric_names

logger = logging.getLogger(__name__)

#: A process that died, and that nobody sees, is found out after this long.
LEASE_SECONDS = 5.0
#: How long an outcome is there for those who have not asked for it yet.
OUTCOME_SECONDS = 60
#: One blocking call to Redis, and how often one who waits checks that the holder lives: shorter than a client's socket timeout.
SLICE_SECONDS = 0.5

#: Outcomes. DONE: the value is stored. ALONE: there is one that could not be stored, so each computes for itself. AGAIN: it
#: was not computed, someone else should try. FAILED is followed by the message of the failure, which all who wait share.
DONE, ALONE, AGAIN, FAILED = b"done", b"alone", b"again", b"failed:"


class FailedError(Exception):
    """The computation that this one waited for failed; the message is the other's own."""


class BusyError(Exception):
    """Nobody has computed the value in the time that this caller may wait; the message is for the user."""


@dataclass(frozen=True)
class Flight:
    """One computation of what `name` is, for all who want it. `token` names its process, and is no other flight's."""

    name: str
    token: str

    @property
    def lease(self) -> Lease:
        """Who has it may compute."""
        return Lease(f"flight:{self.name}", self.token, LEASE_SECONDS)

    @property
    def process(self) -> str:
        """The name of the process that computes (`process_liveness`)."""
        return self.token.partition(" ")[0]

    @property
    def outcome(self) -> str:
        """The key in which the outcome is told."""
        return coordination.key("flown", self.token)

    def end(self, outcome: bytes) -> None:
        """Tell the outcome, and give the lease back: its holder, once, or who saw the holder's death.

        It never fails: without Redis the lease ends by itself.
        """
        try:
            # First: who finds no lease computes for itself.
            pipe = coordination.client().pipeline(transaction=True)
            pipe.rpush(self.outcome, outcome)
            pipe.pexpire(self.outcome, OUTCOME_SECONDS * 1000)
            pipe.execute()
        except Exception:
            logger.warning("the outcome of %s was not told: who waits for it tries again", self.name, exc_info=True)
        leases.keeper.give_back(self.lease)


def take(name: str, most_seconds: float) -> Flight | None:
    """The computation of `name`, whose lease is renewed for at most `most_seconds`; None where another has it.

    Raises what redis-py raises where Redis does not answer.
    """
    flight = Flight(name, f"{process_liveness.name()} {uuid.uuid4().hex}")
    if isinstance(leases.take(flight.lease), leases.Held):
        return None
    leases.keeper.keep(flight.lease, most_seconds)
    return flight


def outcome(name: str, seconds: float) -> bytes | None:
    """What came of the computation of `name` that is under way, for which it waits `seconds` (one blocking call) at most.

    None where there is none yet, AGAIN where nobody computes.
    """
    client = coordination.client()
    token = client.get(Flight(name, "").lease.key)
    if token is None:
        return AGAIN
    flight = Flight(name, text(token))
    if process_liveness.has_ended(flight.process):
        flight.end(AGAIN)
        return AGAIN
    # Moved from the list to itself: it wakes the next one who waits, and is still there for who comes later.
    return cast("bytes | None", client.blmove(flight.outcome, flight.outcome, min(seconds, SLICE_SECONDS)))


def waited() -> None:
    """Count a computation that waits for another's."""
    counters.count(metric_names.CACHE_WAITED)


def saved() -> None:
    """Count a computation that another's has made needless."""
    counters.count(metric_names.CACHE_SAVED)


def refreshed() -> None:
    """Count a value that is computed anew while it can still be served."""
    counters.count(metric_names.CACHE_REFRESHED)


@dataclass
class Scope:
    """One computation of one chart's data, from its question to the cache to its result or failure.

    `probe`: it only asks; it neither waits nor computes. `may_refresh`: a probe may be told that there is nothing, so that
    its request has the value computed anew. `nested`: it is part of one that others may wait for.
    """

    probe: bool
    may_refresh: bool
    nested: bool
    began: float = field(default_factory=time.time)
    flight: Flight | None = None
    missed: bool = False
    #: Why the value was not stored, for its user; and whether nobody shall have it then.
    refused: str | None = None
    too_large: bool = False

    @property
    def waited_for(self) -> bool:
        """Whether others may wait for it: then nothing inside it waits, so that no two wait for each other."""
        return self.flight is not None or self.nested

    def end(self, outcome: bytes) -> None:
        """End its flight, if it has one, with `outcome`."""
        flight, self.flight = self.flight, None
        if flight:
            flight.end(outcome)


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
