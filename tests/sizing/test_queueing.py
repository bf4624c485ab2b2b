"""The queueing model: what is known in closed form, what must hold whatever the load, and a simulation beside it."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.verdict import percentile
from bench.simulation import CASES, check, waits
from sizing.queueing import Service, Stream, mean_wait, merged, slots_needed, tail, wait_quantile, waiting_probability

pytestmark = pytest.mark.thorough

STREAMS = st.lists(
    st.builds(
        Stream,
        st.floats(0.01, 2),
        st.builds(Service, st.floats(0.05, 60), st.floats(0, 3)),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize(("slots", "offered", "expected"), [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (3, 3.0, 1.0)])
def test_erlang_c_has_its_known_values(slots: int, offered: float, expected: float) -> None:
    assert waiting_probability(slots, offered) == pytest.approx(expected, abs=1e-4)


def test_one_exponential_server_is_exact() -> None:
    stream = Stream(0.8, Service(1.0, 1.0))
    assert mean_wait(1, stream) == pytest.approx(4.0)
    assert wait_quantile(1, [stream], 0.95) == pytest.approx(math.log(0.8 / 0.05) / 0.2, rel=2e-3)


def test_constant_service_waits_half_as_long() -> None:
    assert mean_wait(1, Stream(0.8, Service(1.0, 0.0))) == pytest.approx(2.0)


@settings(deadline=None)
@given(STREAMS)
def test_a_mixture_keeps_rate_work_and_second_moment(streams: list[Stream]) -> None:
    whole = merged(streams)
    assert whole.rate == pytest.approx(sum(it.rate for it in streams))
    assert whole.offered == pytest.approx(sum(it.offered for it in streams))
    second = sum(it.rate * it.service.mean**2 * (1 + it.service.cv**2) for it in streams)
    assert whole.rate * whole.service.mean**2 * (1 + whole.service.cv**2) == pytest.approx(second, rel=1e-6)


@settings(deadline=None)
@given(STREAMS, st.floats(0.1, 60))
def test_the_slots_hold_the_objective_and_one_less_does_not(streams: list[Stream], wait: float) -> None:
    slots = slots_needed(streams, 0.95, wait, 0.7)
    assert tail(slots, streams, wait) <= 0.05
    assert merged(streams).offered <= 0.7 * slots + 1e-6
    fewer = slots - 1
    assert fewer == 0 or tail(fewer, streams, wait) > 0.05 or merged(streams).offered > 0.7 * fewer


@settings(deadline=None)
@given(STREAMS, st.floats(0.1, 30), st.floats(1, 10))
def test_who_may_wait_longer_needs_no_more_slots(streams: list[Stream], wait: float, times: float) -> None:
    assert slots_needed(streams, 0.95, wait * times, 0.7) <= slots_needed(streams, 0.95, wait, 0.7)


@settings(deadline=None)
@given(STREAMS, st.floats(0.1, 20), st.floats(0.1, 10))
def test_the_unit_of_time_does_not_matter(streams: list[Stream], wait: float, unit: float) -> None:
    slots = slots_needed(streams, 0.95, wait, 0.7)
    other = [Stream(it.rate / unit, Service(it.service.mean * unit, it.service.cv)) for it in streams]
    assert tail(slots, other, wait * unit) == pytest.approx(tail(slots, streams, wait), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(STREAMS)
def test_an_overloaded_pool_waits_for_ever(streams: list[Stream]) -> None:
    slots = math.floor(merged(streams).offered)
    assert wait_quantile(slots, streams, 0.95) == math.inf
    assert tail(slots, streams, 1.0) == 1.0


def test_the_simulation_itself_is_right_where_the_answer_is_known() -> None:
    stream = Stream(0.8, Service(1.0, 0.0))
    found = statistics.fmean(statistics.fmean(waits(1, [stream], 40_000, seed)) for seed in range(3))
    assert found == pytest.approx(mean_wait(1, stream), rel=0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_model_gives_enough_slots_and_at_most_two_too_many(case) -> None:  # type: ignore[no-untyped-def]
    found = check(case, arrivals=20_000, runs=3)
    assert statistics.median(found.simulated) <= case.wait
    assert found.slots - found.fewest <= 2


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0
    assert percentile([], 0.5) is None
