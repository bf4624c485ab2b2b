"""How long a value is kept and when one caller computes it anew: pure decisions about times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from runtime.results.envelope import Envelope

#: fresh: serve it. due: serve it to all but one, who computes it anew. gone: nothing to serve.
State = Literal["fresh", "due", "gone"]
#: Values that Superset asks to keep without end are kept this long: every key in a cache has a lifetime.
LONGEST_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Lifetimes:
    """How a cache's lifetimes are spread, and how its values are renewed (see `topology.model.Caching`).

    `fetch_seconds`: how long past its lifetime a value is there for who was told that it is ready and comes late.
    """

    jitter_percent: int = 0
    early_refresh: float = 0.0
    stale_seconds: int = 0
    fetch_seconds: int = 0

    def spread(self, seconds: float, chance: float) -> float:
        """A lifetime of `seconds`, changed by at most `jitter_percent` either way; `chance` is in 0..1."""
        return seconds * (1 + (2 * chance - 1) * self.jitter_percent / 100)

    def kept(self, seconds: float) -> float:
        """How long a value with a lifetime of `seconds` is stored."""
        return seconds + max(min(self.stale_seconds, seconds), self.fetch_seconds)

    def state(self, found: Envelope | None, now: float, chance: float) -> State:
        """What to do with what was found. Before it expires, each caller with `chance` (0..1) finds it due, the more
        probably the nearer the end and the longer it takes to compute (XFetch)."""
        if found is None:
            return "gone"
        # A value of a short lifetime is never served much staler than that.
        lifetime = found.expires - found.computed - found.seconds
        if now >= found.expires + min(self.stale_seconds, lifetime):
            return "gone"
        if now >= found.expires:
            return "due"
        early = found.seconds * self.early_refresh * -math.log(1 - chance) if self.early_refresh else 0.0
        return "due" if now + early >= found.expires else "fresh"


def lifetime(timeout: int | None, default: int, tenants: int | None) -> int:
    """Seconds that a value is kept: `timeout` as Superset asks (None: `default`, 0: without end), and a tenant's own
    lifetime instead of the default, and as the most that an explicit one may be."""
    if timeout is None or timeout == default:
        return tenants or default or LONGEST_SECONDS
    seconds = min(timeout if timeout > 0 else LONGEST_SECONDS, LONGEST_SECONDS)
    return min(seconds, tenants) if tenants else seconds
