"""Leases: who does a thing right now, as a key in the coordination database that its process renews and that expires without it.

A lease says that a process is alive; it does not stop one. While Redis is away the work goes on, and the lease is taken again
when Redis is back. One thread a process (`Keeper`) renews all leases of that process. A renewal of a lease that exists is
`PEXPIRE`, which Redis executes at `maxmemory` too; only a lease that Redis has lost needs memory.

Every function raises what redis-py raises where Redis does not answer.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from runtime.environment import coordination
from runtime.environment.redis_clients import text
from runtime.environment.redis_databases import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS

logger = logging.getLogger(__name__)

#: Between two renewals, also after one that failed.
RENEW_SECONDS = 1.0
#: A process that lives and reaches Redis takes a lease that Redis has lost again within this time: one pause, one connection
#: that is found dead, one that is made anew, and a second for the thread to be scheduled.
SILENCE_SECONDS = RENEW_SECONDS + SOCKET_TIMEOUT_SECONDS + CONNECT_TIMEOUT_SECONDS + 1.0
#: Between two questions whether a lease is renewed.
WATCH_SECONDS = 0.5
#: The value of a lease whose process is known to be dead. Anyone may take it at once.
GONE = "gone"

_TAKE = f"""
local value = redis.call('GET', KEYS[1])
if value and value ~= '{GONE}' and value ~= ARGV[1] then return {{value, redis.call('PTTL', KEYS[1])}} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {{value or '', 0}}
"""
_RENEW = """
local value = redis.call('GET', KEYS[1])
if value == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if value then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_BURY = f"""
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '{GONE}', 'PX', ARGV[2])
return 1
"""
_HAND_OVER = """
local value = redis.call('GET', KEYS[1])
if value and value ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


@dataclass(frozen=True)
class Lease:
    """The right to do what `name` is. `holder` names who has it, and is never another's; without a renewal it ends after
    `seconds`."""

    name: str
    holder: str
    seconds: float

    @property
    def key(self) -> str:
        """The key that has `holder` as its value while the lease lives."""
        return coordination.key(self.name)

    @property
    def milliseconds(self) -> int:
        """`seconds`, as Redis counts."""
        return int(self.seconds * 1000)


@dataclass(frozen=True)
class Taken:
    """The lease is ours. `previous_gone`: it was that of a process known to be dead."""

    previous_gone: bool


@dataclass(frozen=True)
class Held:
    """Somebody else has the lease, for `seconds` more unless it is renewed."""

    holder: str
    seconds: float


def take(lease: Lease) -> Taken | Held:
    """Take the lease if nobody else has it."""
    value, milliseconds = _run(_TAKE, lease, lease.holder, lease.milliseconds)
    if milliseconds:
        return Held(text(value), milliseconds / 1000)
    return Taken(previous_gone=text(value) == GONE)


def renew(lease: Lease) -> bool:
    """Have the lease end `seconds` from now, and take it again where Redis has lost it; False where somebody else has it."""
    return bool(_run(_RENEW, lease, lease.holder, lease.milliseconds))


def release(lease: Lease) -> bool:
    """Give the lease back; False where it was not the holder's."""
    return bool(_run(_RELEASE, lease, lease.holder))


def bury(lease: Lease, prefix: str) -> bool:
    """Say that the holder whose name begins with `prefix` is dead, so that nobody waits for its lease to end.

    For whoever knows that. False where somebody else has the lease, and where nobody has: Redis may have lost that of another,
    who lives.
    """
    return bool(_run(_BURY, lease, prefix, lease.milliseconds))


def hand_over(lease: Lease, holder: str) -> Lease:
    """Have `holder` hold the lease from now on; its lease. It stays as it was where somebody else has it."""
    handed = replace(lease, holder=holder)
    return handed if _run(_HAND_OVER, lease, lease.holder, holder, lease.milliseconds) else lease


def holders(names: Iterable[str]) -> dict[str, str]:
    """Who has each of the leases `names`, without those that nobody has."""
    asked = list(names)
    if not asked:
        return {}
    values = cast("list[Any]", coordination.client().mget([coordination.key(name) for name in asked]))
    found = {name: text(value) for name, value in zip(asked, values, strict=True) if value}
    return {name: holder for name, holder in found.items() if holder != GONE}


def falls_silent(
    lease: Lease,
    patience: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether nobody takes or renews the lease for `SILENCE_SECONDS` in which it is free, so that whoever had it is gone.

    It waits for that, for as long as the lease needs to end and `patience` seconds without Redis at most: then what redis-py
    raised is raised. At once it is True of a holder that is known to be dead, and False where somebody shows a sign of life.
    """
    free_since: float | None = None
    last: Held | None = None
    away_since: float | None = None
    while True:
        asked = clock()
        try:
            found = _held(lease)
        except Exception:
            # Whoever lives cannot renew either.
            free_since = last = None
            away_since = asked if away_since is None else away_since
            if clock() - away_since > patience:
                raise
        else:
            away_since = None
            if found and found.holder == GONE:
                return True
            if found is None:
                free_since = clock() if free_since is None else free_since
                if asked - free_since >= SILENCE_SECONDS:
                    return True
            elif free_since is not None or (last and (found.holder != last.holder or found.seconds > last.seconds)):
                return False
            last = found
        sleep(WATCH_SECONDS)


def _held(lease: Lease) -> Held | None:
    pipe = coordination.client().pipeline(transaction=True)
    pipe.get(lease.key)
    pipe.pttl(lease.key)
    value, milliseconds = pipe.execute()
    return None if value is None else Held(text(value), milliseconds / 1000)


def _run(script: str, lease: Lease, *arguments: object) -> Any:
    return cast(Any, coordination.client().eval(script, 1, lease.key, *arguments))


def _renew_each(leases: Sequence[Lease]) -> list[Any]:
    """What came of each renewal, or its error, in one round trip: many leases must not wait for each other's timeouts."""
    pipe = coordination.client().pipeline(transaction=False)
    for lease in leases:
        pipe.eval(_RENEW, 1, lease.key, lease.holder, lease.milliseconds)
    return pipe.execute(raise_on_error=False)


class Keeper:
    """Renews this process's leases in one thread, which begins with the first of them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Have none: after a fork they are the parent's, and so is the thread."""
        self._until: dict[Lease, float] = {}
        self._lock = threading.Lock()
        self._kept = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, lease: Lease, most_seconds: float = float("inf")) -> None:
        """Renew the lease until it is given back, for at most `most_seconds`."""
        with self._lock:
            self._until[lease] = time.monotonic() + most_seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
        self._kept.set()

    def drop(self, lease: Lease) -> None:
        """Renew the lease no more."""
        with self._lock:
            self._until.pop(lease, None)

    def keeps(self, lease: Lease) -> bool:
        """Whether this process does what the lease is for."""
        with self._lock:
            return lease in self._until

    def give_back(self, lease: Lease) -> None:
        """Renew the lease no more, and release it. It never fails: without Redis the lease ends by itself."""
        self.drop(lease)
        try:
            release(lease)
        except Exception as error:
            logger.warning("lease %s was not given back, it ends within %s s: %s", lease.name, lease.seconds, error)

    def renew_all(self) -> None:
        """Renew every lease once. It never fails: each is tried again at the next renewal."""
        with self._lock:
            now = time.monotonic()
            self._until = {lease: until for lease, until in self._until.items() if until > now}
            kept = list(self._until)
        if not kept:
            return
        results: list[Any]
        try:
            results: list[Any] = _renew_each(kept)
        except Exception as error:
            results = [error] * len(kept)
        for lease, result in zip(kept, results, strict=True):
            if isinstance(result, Exception):
                logger.warning("lease %s was not renewed: %s", lease.name, result)
            elif not result:
                logger.warning("%s does what %s says, and the lease is another's", lease.holder, lease.name)
            with self._lock:
                dropped = lease not in self._until
            if dropped:
                # Given back while it was renewed, which may have taken it again.
                self.give_back(lease)

    def _run(self) -> None:
        while True:
            self._kept.wait()
            time.sleep(RENEW_SECONDS)
            self.renew_all()
            with self._lock:
                if not self._until:
                    self._kept.clear()


#: This process's.
keeper = Keeper()

os.register_at_fork(after_in_child=keeper.forget)
