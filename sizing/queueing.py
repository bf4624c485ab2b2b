"""Waiting in a pool: many slots, one queue, several streams of queries that arrive at random.

Two approximations, of which the smaller one is taken, since both err upwards where they err much:

- All streams as one M/G/c queue: the probability of waiting is Erlang C's, the mean wait that of M/M/c times (1 + cv²) / 2
  (Lee and Longton), and a wait's tail is exponential, as it is exactly in M/M/c. It overstates the wait of many short queries
  beside a few long ones: most of the mixture's variation is of queries that seldom fill the pool together.
- Streams of far longer durations taken apart (time-scale decomposition): they change so slowly that the others see a fixed
  number of slots left, and that number is random.

`python -m bench.simulation model` shows the model beside a simulation, and how many slots it gives too many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

#: A stream is a slow one where its mean is as many times that of all faster ones.
SLOW = 6.0
#: Waits are found to this share of themselves.
_PRECISION = 1e-3
#: States of slow queries that are less likely than this are left out.
_NEGLIGIBLE = 1e-12
#: What one look at a load asks for again and again: the same few slots left, for the same streams.
_remembered = lru_cache(maxsize=50_000)


@dataclass(frozen=True)
class Service:
    """Service times of what arrives: mean in seconds, and coefficient of variation (standard deviation divided by mean)."""

    mean: float
    cv: float

    def __post_init__(self) -> None:
        if not (self.mean > 0 and self.cv >= 0):
            raise ValueError(
                f"a service time needs a mean above 0 and a variation of at least 0, not {self.mean}, {self.cv}"
            )


@dataclass(frozen=True)
class Stream:
    """Queries that arrive at random, `rate` a second."""

    rate: float
    service: Service

    @property
    def offered(self) -> float:
        """Slots that it keeps busy on average (Erlang)."""
        return self.rate * self.service.mean


def merged(streams: Sequence[Stream]) -> Stream:
    """Several streams as one; ValueError where nothing arrives."""
    rate = sum(stream.rate for stream in streams)
    if not rate > 0:
        raise ValueError("a mixture needs a stream with a rate above 0")
    mean = sum(stream.offered for stream in streams) / rate
    second = sum(stream.rate * stream.service.mean**2 * (1 + stream.service.cv**2) for stream in streams) / rate
    return Stream(rate, Service(mean, math.sqrt(max(0.0, second / mean**2 - 1))))


@_remembered
def waiting_probability(slots: int, offered: float) -> float:
    """Erlang C: the share of arrivals that find all `slots` busy, where `offered` Erlang arrive; 1 when overloaded."""
    if offered >= slots:
        return 1.0
    blocked = 1.0
    for busy in range(1, slots + 1):
        blocked = offered * blocked / (busy + offered * blocked)
    return blocked / (1 - offered / slots * (1 - blocked))


def mean_wait(slots: int, stream: Stream) -> float:
    """Mean seconds of an arrival in the queue of one stream; infinite when overloaded."""
    if stream.offered >= slots:
        return math.inf
    exponential = waiting_probability(slots, stream.offered) * stream.service.mean / (slots - stream.offered)
    return exponential * (1 + stream.service.cv**2) / 2


def tail(slots: int, streams: Sequence[Stream], wait: float) -> float:
    """The share of arrivals that wait longer than `wait` seconds; 1 when overloaded."""
    return _tail(slots, merged(streams), _by_time_scale(streams), wait)


def wait_quantile(slots: int, streams: Sequence[Stream], share: float) -> float:
    """Seconds that `share` of the arrivals do not wait longer than; infinite when overloaded."""
    whole, groups = merged(streams), _by_time_scale(streams)
    if whole.offered >= slots:
        return math.inf
    if _tail(slots, whole, groups, 0.0) <= 1 - share:
        return 0.0
    high = whole.service.mean
    while _tail(slots, whole, groups, high) > 1 - share:
        high *= 2
    low = 0.0
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(slots, whole, groups, middle) > 1 - share else (low, middle)
    return high


def slots_needed(streams: Sequence[Stream], share: float, wait: float, utilization: float) -> int:
    """The fewest slots in which `share` of arrivals wait at most `wait`, busy for at most `utilization` of the time."""
    slots = max(1, math.ceil(sum(stream.offered for stream in streams) / utilization - 1e-9))
    while tail(slots, streams, wait) > 1 - share:
        slots += 1
    return slots


def _by_time_scale(streams: Sequence[Stream]) -> tuple[Stream, ...]:
    """Groups of streams, fastest first, each far slower than the ones before it together."""
    groups: list[list[Stream]] = []
    for stream in sorted(streams, key=lambda it: it.service.mean):
        faster = [member for group in groups for member in group]
        if not groups or stream.service.mean >= SLOW * merged(faster).service.mean:
            groups.append([stream])
        else:
            groups[-1].append(stream)
    return tuple(merged(group) for group in groups)


def _tail(slots: int, whole: Stream, groups: tuple[Stream, ...], wait: float) -> float:
    return min(_one_queue(slots, whole, wait), _taken_apart(slots, groups, wait))


def _one_queue(slots: int, stream: Stream, wait: float) -> float:
    if stream.offered >= slots:
        return 1.0
    waiting = waiting_probability(slots, stream.offered)
    mean = mean_wait(slots, stream)
    return waiting * math.exp(-wait * waiting / mean) if mean > 0 else 0.0


@_remembered
def _taken_apart(slots: int, groups: tuple[Stream, ...], wait: float) -> float:
    """The slowest group has what the others leave it on average; the others have what it leaves them at the moment."""
    *faster, slowest = groups
    if not faster:
        return _one_queue(slots, slowest, wait)
    others = sum(group.offered for group in faster)
    left = slots - others
    if left <= slowest.offered:
        return 1.0
    filled = _waiting_probability_between(left, slowest.offered)
    until = slowest.service.mean * (1 + slowest.service.cv**2) / 2 / (left - slowest.offered)
    states = [
        math.exp(busy * math.log(slowest.offered) - math.lgamma(busy + 1) - slowest.offered)
        for busy in range(math.ceil(left))
    ]
    total = sum(states)
    weighted = sum(
        state * _taken_apart(slots - busy, tuple(faster), wait)
        for busy, state in enumerate(states)
        if state > _NEGLIGIBLE * total
    )
    return filled * math.exp(-wait / until) + (1 - filled) * weighted / total


def _waiting_probability_between(slots: float, offered: float) -> float:
    """Erlang C for a number of slots that is not whole: between its neighbours, geometrically."""
    below = math.floor(slots)
    low, high = (waiting_probability(number, offered) if number else 1.0 for number in (below, below + 1))
    return low ** (below + 1 - slots) * high ** (slots - below)
