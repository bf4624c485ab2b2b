"""The simulated scaler keeps the rules that the manifests have, and the days simulated with it add up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulation import POOL_STREAMS, day, weekday
from sizing.autoscaling import Rules, Scaler, wanted

RULES = Rules(min_workers=2, max_workers=20, queued_per_worker=10)
DEPTHS = st.lists(st.integers(0, 400), min_size=1, max_size=120)


@settings(deadline=None)
@given(DEPTHS)
def test_workers_stay_in_bounds_and_change_no_faster_than_the_rules(depths: list[int]) -> None:
    scaler, workers, history = Scaler(RULES), RULES.min_workers, []
    for number, depth in enumerate(depths):
        now = number * RULES.decide_every
        after = scaler.decide(now, workers, depth, 0.0)
        assert RULES.min_workers <= after <= RULES.max_workers
        history.append((now, after - workers))
        grown = sum(change for at, change in history if change > 0 and at > now - RULES.grow_period)
        before = after - grown
        assert grown <= max(before, 2) or after <= workers
        assert -sum(change for at, change in history if change < 0 and at > now - RULES.shrink_period) <= 1
        workers = after


@settings(deadline=None)
@given(DEPTHS)
def test_a_worker_goes_only_when_nothing_in_the_window_asked_for_it(depths: list[int]) -> None:
    scaler, workers, asked = Scaler(RULES), 20, []
    for number, depth in enumerate(depths):
        now = number * RULES.decide_every
        asked.append((now, min(20, max(2, wanted(workers, depth, RULES.queued_per_worker)))))
        after = scaler.decide(now, workers, depth, 0.0)
        if after < workers:
            assert after >= max(it for at, it in asked if at >= now - RULES.window)
        workers = after


def test_a_deviation_of_a_tenth_changes_nothing() -> None:
    assert wanted(10, 109, 10) == 10
    assert wanted(10, 112, 10) == 12
    assert wanted(10, 88, 10) == 9


def test_the_processor_can_ask_for_more_than_the_queue() -> None:
    assert Scaler(RULES).decide(0.0, 4, 0, 4 * 0.95) == 6


def test_a_lower_target_waits_less_and_costs_more() -> None:
    def of(target: int):  # type: ignore[no-untyped-def]
        rules = Rules(min_workers=2, max_workers=20, queued_per_worker=target)
        return day(rules, lambda hour: weekday(hour + 8), 3.0, POOL_STREAMS, concurrency=4, seed=1, hours=2.0)

    eager, lazy = of(4), of(50)
    assert eager.p95 <= lazy.p95
    assert eager.worker_hours >= lazy.worker_hours
    assert 2 <= lazy.most <= eager.most <= 20
