"""The leases of executions: which process executes a query or chart right now.

An execution lives as long as its lease, or as its process could not take it again (`runtime.environment.leases`).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.environment import coordination, counters, leases
from runtime.environment.leases import Lease
from runtime.queries.executions import Kind
from topology import metric_names

logger = logging.getLogger(__name__)

#: A lease lives so long after its last renewal; then its process is gone, or cannot reach Redis.
SECONDS = 15.0


@dataclass(frozen=True)
class Owner:
    """One delivery: the worker's node name, its child's process id, the task's id, and a word of its own.

    `pid` is 0 until it has begun: a parent that buries the lease of its child says that an attempt is dead, and one that only
    finds out whether it may begin has none.
    """

    worker: str
    pid: int
    task_id: str
    word: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __str__(self) -> str:
        return f"{self.worker} {self.pid} {self.task_id} {self.word}"

    @staticmethod
    def parse(value: str) -> Owner:
        """The owner that `value`, a lease's holder, names; ValueError where it names none."""
        worker, pid, task_id, word = value.split(" ")
        return Owner(worker, int(pid), task_id, word)


def lease(kind: Kind, subject: str, owner: Owner | str) -> Lease:
    """The lease of `owner` to execute `subject`."""
    return Lease(f"lease:{kind}:{subject}", str(owner), SECONDS)


def take(wanted: Lease) -> leases.Taken | leases.Held:
    """Take it if nobody else has it; a value that names no owner is removed first. Raises what redis-py raises."""
    found = leases.take(wanted)
    if isinstance(found, leases.Held) and _owner(wanted.name, found.holder) is None:
        return leases.take(wanted)
    return found


def bury(kind: Kind, subject: str, worker: str, pid: int) -> bool:
    """Say that child `pid` of `worker` is dead, so that nobody waits for its lease to end. For the child's parent only.

    False where somebody else has the lease. Raises what redis-py raises.
    """
    prefix = f"{worker} {pid} "
    return leases.bury(lease(kind, subject, prefix), prefix)


def owner(kind: Kind, subject: str) -> Owner | None:
    """Who executes `subject`; None for nobody. Raises what redis-py raises."""
    return owners(kind, [subject]).get(subject)


def owners(kind: Kind, subjects: Iterable[str]) -> dict[str, Owner]:
    """Who executes each of `subjects`, without those that nobody does. Raises what redis-py raises."""
    names = {lease(kind, subject, "").name: subject for subject in subjects}
    found = {name: _owner(name, holder) for name, holder in leases.holders(names).items()}
    return {names[name]: known for name, known in found.items() if known}


def _owner(name: str, holder: str) -> Owner | None:
    """The owner that a lease names; a lease that names none is removed and counted: nobody would ever renew it."""
    try:
        return Owner.parse(holder)
    except ValueError:
        logger.warning("%s has a value that names no owner: removed", coordination.key(name))
        leases.release(Lease(name, holder, SECONDS))
        counters.count(metric_names.POISON, where="lease")
        return None
