"""Who executes a query right now: a key in the coordination database that its process renews, and that dies with it.

A lease says that an execution lives; it does not keep one alive. Where Redis is away the execution goes on, and its lease is
taken anew when Redis is back. Safe after a fork: each process has connections and threads of its own.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from runtime.environment import coordination
from runtime.environment.redis_clients import text
from runtime.queries.executions import Kind

logger = logging.getLogger(__name__)

#: A lease lives as long after its last renewal; then its process is gone, or cannot reach Redis.
TTL_SECONDS = 15.0
RENEW_SECONDS = 5.0
#: After a renewal that failed, the next one comes sooner: until it does, an execution has no lease.
RETRY_SECONDS = 1.0
#: The value of a lease whose process is known to have ended without a word. Anyone may take it at once.
GONE = "gone"

_TAKE = f"""
local value = redis.call('GET', KEYS[1])
if value and value ~= '{GONE}' and value ~= ARGV[1] then return {{value, redis.call('PTTL', KEYS[1])}} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {{value or '', 0}}
"""
_RENEW = """
local value = redis.call('GET', KEYS[1])
if value and value ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_BURY = f"""
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '{GONE}', 'PX', ARGV[2])
return 1
"""


@dataclass(frozen=True)
class Owner:
    """One execution: the worker's node name, its child's process id, the task's id, and a word of its own."""

    worker: str
    pid: int
    task_id: str
    word: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __str__(self) -> str:
        return f"{self.worker} {self.pid} {self.task_id} {self.word}"

    @staticmethod
    def parse(value: str) -> Owner:
        """The owner that `value`, a lease's, names."""
        worker, pid, task_id, word = value.split(" ")
        return Owner(worker, int(pid), task_id, word)


@dataclass(frozen=True)
class Taken:
    """The lease is ours. `previous_gone`: it was that of a process known to be dead."""

    previous_gone: bool


@dataclass(frozen=True)
class Held:
    """Somebody has the lease, for `seconds` more unless it is renewed."""

    owner: Owner
    seconds: float


def take(kind: Kind, subject: str, owner: Owner) -> Taken | Held:
    """Take the lease if nobody else has it. Raises what redis-py raises where Redis does not answer."""
    value, milliseconds = _run(_TAKE, kind, subject, str(owner), _milliseconds())
    if milliseconds:
        return Held(Owner.parse(text(value)), milliseconds / 1000)
    return Taken(previous_gone=text(value) == GONE)


def renew(kind: Kind, subject: str, owner: Owner) -> bool:
    """Keep the lease, or take it anew where it is lost; False where somebody else has it."""
    return bool(_run(_RENEW, kind, subject, str(owner), _milliseconds()))


def release(kind: Kind, subject: str, owner: Owner) -> bool:
    """Give the lease back; False where it was not the owner's."""
    return bool(_run(_RELEASE, kind, subject, str(owner)))


def bury(kind: Kind, subject: str, worker: str, pid: int) -> bool:
    """Say that child `pid` of `worker` is dead, so that nobody waits for its lease to expire.

    For the child's parent only. False where somebody else has the lease.
    """
    return bool(_run(_BURY, kind, subject, f"{worker} {pid} ", _milliseconds()))


def holder(kind: Kind, subject: str) -> Owner | None:
    """Who executes `subject`; None for nobody. Raises what redis-py raises where Redis does not answer."""
    return holders(kind, [subject]).get(subject)


def holders(kind: Kind, subjects: Iterable[str]) -> dict[str, Owner]:
    """Who executes each of `subjects`, without those that nobody does."""
    asked = list(subjects)
    if not asked:
        return {}
    values = cast("list[Any]", coordination.client().mget([_key(kind, subject) for subject in asked]))
    texts = {subject: text(value) for subject, value in zip(asked, values, strict=True) if value}
    return {subject: Owner.parse(text) for subject, text in texts.items() if text != GONE}


class Renewal:
    """A thread that renews a lease until `end`, whose first duty is to never disturb the execution."""

    def __init__(self, kind: Kind, subject: str, owner: Owner) -> None:
        self._lease = (kind, subject, owner)
        self._ended = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"lease {kind} {subject}", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def end(self) -> None:
        """Renew no more, and give the lease back if Redis can be asked to."""
        self._ended.set()
        # A renewal that is under way would take anew what is given back here.
        with self._turn:
            try:
                release(*self._lease)
            except Exception:
                logger.warning("lease of %s %s is left to expire", *self._lease[:2], exc_info=True)

    def _run(self) -> None:
        pause = RENEW_SECONDS
        while not self._ended.wait(pause):
            with self._turn:
                if self._ended.is_set():
                    return
                pause = self._renew()

    def _renew(self) -> float:
        kind, subject, owner = self._lease
        try:
            if not renew(kind, subject, owner):
                logger.warning("%s %s is executed here (%s), and its lease is somebody else's", kind, subject, owner)
        except Exception as error:
            logger.warning("lease of %s %s was not renewed: %s", kind, subject, error)
            return RETRY_SECONDS
        return RENEW_SECONDS


@contextmanager
def held(kind: Kind, subject: str, owner: Owner) -> Generator[None]:
    """Keep the lease that was taken (or that Redis could not be asked for) through the block, and give it back."""
    renewal = Renewal(kind, subject, owner)
    renewal.start()
    try:
        yield
    finally:
        renewal.end()


def _key(kind: Kind, subject: str) -> str:
    return coordination.key("lease", kind, subject)


def _run(script: str, kind: Kind, subject: str, *arguments: object) -> Any:
    # Not by its digest: loading scripts is an administrator's command, which Superset's user may not use.
    return cast(Any, coordination.client().eval(script, 1, _key(kind, subject), *arguments))


def _milliseconds() -> int:
    return int(TTL_SECONDS * 1000)
