"""From a load to a stack: every stack is accepted, more load never needs less, and each step says what gives way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizing import growth
from sizing.constants import MEASURED
from sizing.load import Executed, LoadError, observed, read
from sizing.recommendation import recommend
from topology.plan import plan

CLASS = st.fixed_dictionaries(
    {
        "name": st.just("q"),
        "kind": st.sampled_from(["sql", "chart"]),
        "per_hour": st.floats(1, 20_000),
        "seconds": st.floats(0.01, 300),
        "variation": st.floats(0, 3),
        "tenant": st.sampled_from([None, "finance", "sales"]),
    }
)
LOADS = st.fixed_dictionaries(
    {
        "users": st.integers(1, 10_000),
        "wait_p95": st.floats(0.1, 60),
        "busy_hours": st.floats(1, 24),
        "classes": st.lists(CLASS, min_size=1, max_size=4),
        "tenants": st.just({"finance": {"roles": ["Finance"]}, "sales": {"users": ["bob"]}}),
    }
)
SMALL: dict[str, Any] = {"users": 5, "classes": [{"name": "few", "per_hour": 100, "seconds": 1}]}
slow_input = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@slow_input
@given(LOADS)
def test_every_load_has_a_stack_that_the_plan_accepts_and_that_holds_its_objective(content: dict[str, Any]) -> None:
    found = recommend(read(content, "test"))
    planned = plan("sized", found.config)
    for pool in found.pools:
        there = planned.pool(pool.name)
        assert (there.concurrency, there.min_workers, there.max_workers) == (
            pool.concurrency,
            pool.min_workers,
            pool.max_workers,
        )
        # One worker may be lost, and the objective still holds.
        assert (pool.max_workers - 1) * pool.concurrency >= pool.slots
        assert pool.wait <= found.load.wait_p95
        assert pool.rate * pool.service.mean <= MEASURED.utilization * pool.slots + 1e-6
    assert planned.postgres.max_connections >= found.connections
    assert all(limit.times >= 0.9 for limit in found.limits), found.limits


@slow_input
@given(LOADS, st.floats(1, 20))
def test_more_load_never_needs_less(content: dict[str, Any], factor: float) -> None:
    load = read(content, "test")
    before, after = recommend(load, "multi-tenant"), recommend(load.times(factor), "multi-tenant")
    for one, more in zip(before.pools, after.pools, strict=True):
        assert more.slots >= one.slots
        assert more.max_workers >= one.max_workers
    assert after.web_replicas >= before.web_replicas
    assert after.cache_bytes >= before.cache_bytes
    assert after.connections >= before.connections


def test_the_topology_follows_from_the_load() -> None:
    assert recommend(read(SMALL, "test")).topology == "minimal"
    large = SMALL | {"classes": [{"name": "many", "per_hour": 40_000, "seconds": 2}]}
    assert recommend(read(large, "test")).topology == "enterprise"
    tenants = SMALL | {"tenants": {"finance": {"roles": ["Finance"]}}}
    assert recommend(read(tenants, "test")).topology == "multi-tenant"


def test_a_base_keeps_what_is_no_size() -> None:
    found = recommend(read(SMALL, "test"), "minimal", {"namespace": "bi", "platform": "kubernetes", "row_limit": 77})
    assert (found.config["namespace"], found.config["row_limit"]) == ("bi", 77)


def test_long_queries_are_scaled_on_fewer_messages_than_short_ones() -> None:
    short = recommend(read(SMALL | {"classes": [{"name": "s", "per_hour": 9000, "seconds": 0.3}]}, "test")).pools[0]
    long = recommend(read(SMALL | {"classes": [{"name": "l", "per_hour": 9000, "seconds": 60}]}, "test")).pools[0]
    assert long.queued_per_worker < short.queued_per_worker


def test_growth_says_when_sizes_are_not_enough() -> None:
    load = read({"users": 100, "classes": [{"name": "s", "per_hour": 2000, "seconds": 1}]}, "test")
    small, large = growth.steps(load, [1, 2000])
    assert small.changes == ()
    told = " ".join(large.changes)
    assert "PgBouncer" in told
    assert "more than one server has" in told
    assert "broker" in told


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"users": 0}, "users = 0"),
        ({"classes": []}, "classes = []"),
        ({"wait": 3}, "wait = 3"),
        ({"classes": [{"name": "x", "per_hour": -1, "seconds": 1}]}, "classes.0.per_hour = -1"),
        (
            {"classes": [{"name": "x", "per_hour": 1, "seconds": 1, "tenant": "acme"}]},
            "acme of the classes are not among them",
        ),
    ],
)
def test_a_wrong_load_names_key_value_and_rule(change: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadError) as refused:
        read(SMALL | change, "load.yaml")
    assert says in str(refused.value)
    assert "load.yaml" in str(refused.value)


def _ran(hour: float, seconds: float, tenant: str = "", user: str = "ann") -> Executed:
    return Executed("sql", tenant, user, hour * 3600, hour * 3600 + 1, hour * 3600 + 1 + seconds)


def test_what_was_executed_becomes_the_busiest_hours_load() -> None:
    quiet = [_ran(8 + number / 10, 0.5) for number in range(3)]
    busy = [_ran(9 + number / 100, 0.5, user=f"u{number}") for number in range(60)]
    exports = [_ran(9.5, 90), _ran(9.6, 110)]
    found = observed([*quiet, *busy, *exports], 3.0, {})
    assert {it.name: it.per_hour for it in found.classes} == {"sql-short": 60, "sql-long": 2}
    long = next(it for it in found.classes if it.name == "sql-long")
    assert (long.seconds, long.variation) == (100.0, 0.1)
    assert (found.users, found.wait_p95, found.busy_hours) == (61, 3.0, 1)


def test_a_tenant_that_the_stack_has_keeps_its_pool() -> None:
    rows = [_ran(9, 0.5, "finance"), _ran(9, 0.5, "gone")]
    found = observed(rows, 3.0, {"finance": {"roles": ["Finance"]}})
    assert {it.name: it.tenant for it in found.classes} == {"finance-sql-short": "finance", "gone-sql-short": None}


def test_nothing_executed_is_no_load() -> None:
    with pytest.raises(LoadError, match="nothing to learn"):
        observed([], 2.0, {})
