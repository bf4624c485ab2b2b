"""How many threads of a web process may wait for analytic databases at once: a stated share of them, in all and a principal."""

from __future__ import annotations

import threading
from collections import Counter


def most(threads: int) -> int:
    """Half of a process's threads, and one at least: the others answer what waits for no database of users."""
    return max(1, threads // 2)


def most_for_names(threads: int) -> int:
    """A third, for what is only asked what there is: it neither takes a slot from what executes, nor waits for one."""
    return max(1, threads // 3)


class Slots:
    """So many slots of one process, `most`. One principal gets all of them but one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.most_of_one = max(1, self.most - 1)
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self, principal: str, patience: float = 0.0) -> bool:
        """Take a slot for `principal`; False where there is none within `patience` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_one(principal), patience):
                return False
            self._taken[principal] += 1
            return True

    def _has_one(self, principal: str) -> bool:
        return self._taken.total() < self.most and self._taken[principal] < self.most_of_one

    def give_back(self, principal: str) -> None:
        """Give one back that was taken."""
        with self._changed:
            self._taken[principal] -= 1
            self._taken += Counter()
            self._changed.notify_all()
