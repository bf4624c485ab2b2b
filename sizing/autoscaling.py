"""What a scaler decides, as KEDA and the HPA behind it do: the desired number of workers, and how fast it may change. Pure.

The HPA takes the larger of what messages and processor time ask for, tolerates a tenth of deviation, grows by at most 100 %
or 2 workers in 30 s, and shrinks by one worker in 60 s once nothing asked for more during the window:
`components/autoscaler.py` writes these rules.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

TOLERANCE = 0.1


@dataclass(frozen=True)
class Rules:
    """What a pool is scaled by. Seconds, except `queued_per_worker` (messages waiting or running) and `cpu_target` (a share
    of the request). `decide_every`: the HPA's own period; `look_every`: how often KEDA asks the broker."""

    min_workers: int
    max_workers: int
    queued_per_worker: int
    cpu_target: float = 0.70
    window: float = 300.0
    decide_every: float = 15.0
    look_every: float = 15.0
    grow_period: float = 30.0
    shrink_period: float = 60.0


def wanted(workers: int, value: float, target: float) -> int:
    """Workers at which the average of `value` would be `target`; those that are there where it is within the tolerance."""
    if workers and abs(value / workers / target - 1) <= TOLERANCE:
        return workers
    return math.ceil(value / target - 1e-9)


@dataclass
class Scaler:
    """The HPA of one pool: remembers what it recommended within the window, and when it last grew and shrank."""

    rules: Rules
    _recommended: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]], init=False)
    _changes: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]], init=False)

    def decide(self, now: float, workers: int, messages: int, cpu: float) -> int:
        """The workers that there should be, of `workers` that there are or start; `cpu`: sum of their shares of the request."""
        rules = self.rules
        asked = max(wanted(workers, messages, rules.queued_per_worker), wanted(workers, cpu, rules.cpu_target))
        asked = min(rules.max_workers, max(rules.min_workers, asked))
        self._recommended.append((now, asked))
        while self._recommended[0][0] < now - rules.window:
            self._recommended.popleft()
        while self._changes and self._changes[0][0] <= now - max(rules.grow_period, rules.shrink_period):
            self._changes.popleft()
        if asked > workers:
            grown = sum(change for at, change in self._changes if change > 0 and at > now - rules.grow_period)
            before = workers - grown
            result = min(asked, max(2 * before, before + 2))
        else:
            shrunk = -sum(change for at, change in self._changes if change < 0 and at > now - rules.shrink_period)
            stable = max(it for _, it in self._recommended)
            result = min(workers, max(stable, workers + shrunk - 1))
        result = max(result, workers) if asked > workers else result
        if result != workers:
            self._changes.append((now, result - workers))
        return result
