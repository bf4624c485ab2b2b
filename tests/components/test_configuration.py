"""A process restarts exactly when something that it reads has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from runtime.config import render
from runtime.tenants.router import LiveRouter
from tests.parameters import name_of
from topology import presets, readers, stack_file
from topology.commands import ROLE_ENV
from topology.model import Topology
from topology.plan import plan
from topology.problems import StackError
from topology.readers import Process

#: Those that have Superset's configuration.
ROLES: tuple[Process, ...] = ("web", "worker", "beat", "init")
SECRETS = {
    "SUPERSET_SECRET_KEY": "0123456789abcdef" * 4,
    "ASYNC_QUERIES_JWT_SECRET": "fedcba9876543210" * 4,
    "POSTGRES_PASSWORD": "p",
    "REDIS_BROKER_PASSWORD": "b",
    "REDIS_CACHE_PASSWORD": "c",
    **{f"MESSAGE_KEY_{number}": "m" * 64 for number in range(1, 4)},
}


def configuration(topology: Topology, role: Process) -> object:
    """All that a process of `role` is configured with: the settings, and the state of the objects in them.

    Not what it reads anew while it runs: which queues there are, and whose queries go to them.
    """
    settings = render(topology, {**SECRETS, ROLE_ENV: role})
    celery = cast("dict[str, object]", settings["CELERY_CONFIG"])
    assert isinstance(celery["task_routes"], tuple)
    assert [type(route) for route in celery.pop("task_routes")] == [LiveRouter]  # type: ignore[arg-type]
    del celery["task_queues"]
    if role != "beat":
        # It is the one that sends jobs.
        del celery["beat_schedule"]
    return _plain(settings)


def _plain(value: object) -> object:
    if isinstance(value, dict | tuple | list):
        items = cast("Any", value).items() if isinstance(value, dict) else enumerate(cast("Any", value))
        return {str(key): _plain(inner) for key, inner in items}
    if hasattr(value, "__dict__") and not callable(getattr(value, "__name__", None)):
        return {"type": type(value).__qualname__, **{key: _plain(inner) for key, inner in vars(value).items()}}
    return repr(value)


changes = st.fixed_dictionaries(
    {},
    optional={
        "row_limit": st.integers(100, 1000),
        "statement_timeout": st.integers(100, 200),
        "admin_username": st.sampled_from(["admin", "root"]),
        "labels": st.just({"team": "data"}),
        "environment": st.sampled_from(["dev", "prod"]),
        "images": st.just({"superset": "superset-async:2"}),
        "caching": st.fixed_dictionaries({}, optional={"chart_data_ttl": st.integers(60, 90)}),
        "celery": st.fixed_dictionaries(
            {},
            optional={
                "result_expires": st.integers(60, 90),
                "acks_late": st.booleans(),
                "visibility_timeout": st.just(7200),
            },
        ),
        "web": st.fixed_dictionaries(
            {},
            optional={
                "threads": st.integers(1, 20),
                "max_replicas": st.integers(4, 6),
                "secure_cookies": st.booleans(),
                "connections": st.fixed_dictionaries({}, optional={"size": st.integers(1, 9)}),
            },
        ),
        "redis": st.fixed_dictionaries({}, optional={"broker": st.just({"maxmemory": "128Mi", "volume_size": "12Gi"})}),
        "postgres": st.fixed_dictionaries(
            {}, optional={"database": st.sampled_from(["superset", "meta"]), "reserved_connections": st.integers(5, 9)}
        ),
        "workers": st.fixed_dictionaries({}, optional={"max_workers": st.integers(3, 9), "grace_period": st.just(900)}),
        "databases": st.just({"lake": {"uri": "postgresql://10.21.0.9/hive"}}),
        "maintenance": st.just({"query_retention_days": 7}),
        "tenants": st.just({"acme": {"users": ["ann"], "pool": "shared"}}),
    },
)


def restarted(before: Topology, after: Topology) -> set[Process]:
    """The kinds of processes that read something else at their start."""
    return {kind for kind in readers.PROCESSES if readers.at_start(before, kind) != readers.at_start(after, kind)}


def planned(topology: str, change: Mapping[str, Any]) -> Topology | None:
    try:
        return plan("test", {"topology": topology, **change})
    except StackError:
        return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.sampled_from(presets.NAMES), changes, st.sampled_from(ROLES))
def test_what_a_process_reads_decides_its_configuration(name: str, change: dict[str, Any], role: Process) -> None:
    """With the relevant part equal, the configuration is equal: whatever else changed, no restart was missed."""
    before, after = planned(name, {}), planned(name, change)
    assume(before is not None and after is not None)
    assert before and after
    if readers.at_start(before, role) == readers.at_start(after, role):
        assert configuration(before, role) == configuration(after, role)


@pytest.mark.parametrize(
    ("change", "roles"),
    [
        ({"row_limit": 500}, set(ROLES)),
        ({"celery": {"result_expires": 60}}, set(ROLES)),
        ({"web": {"connections": {"size": 3}}}, {"web"}),
        ({"databases": {"lake": {"uri": "postgresql://10.21.0.9/hive"}}}, {"init", "beat"}),
        # The reaper's pace; web and workers read it live.
        ({"resilience": {"max_queued": 7}}, {"beat"}),
        ({"maintenance": {"query_retention_days": 7}}, {"beat"}),
        ({"local": {"redis_port": 17000}, "platform": "local"}, {*ROLES, "exporter"}),
        ({"admin_username": "root"}, {"init"}),
        ({"workers": {"max_workers": 3, "max_tasks_per_child": 7}}, set[str]()),
        ({"web": {"threads": 3, "max_replicas": 5}}, set[str]()),
        ({"redis": {"broker": {"maxmemory": "128Mi"}}}, set[str]()),
        ({"images": {"superset": "superset-async:2"}, "labels": {"team": "data"}}, set[str]()),
    ],
    ids=name_of,
)
def test_who_restarts_for_a_changed_setting(change: dict[str, Any], roles: set[str]) -> None:
    unchanged = stack_file.read("minimal") | {key: change[key] for key in change if key == "platform"}
    before, after = plan("test", unchanged), plan("test", {**unchanged, **change})
    assert restarted(before, after) == roles


def test_the_first_tenant_with_guests_restarts_what_has_to_take_their_tokens() -> None:
    """Superset takes guests' tokens where a feature says so, which it reads at its start."""
    guests = TENANTS | {"a": {"guests": [{"claim": "org", "value": "acme"}]}}
    before, after = (plan("test", {"topology": "multi-tenant", "tenants": tenants}) for tenants in (TENANTS, guests))
    assert restarted(before, after) == set(ROLES)


TENANTS: dict[str, Any] = {"a": {"users": ["ann"]}, "b": {"users": ["bob"]}, "c": {"users": ["eve"], "pool": "shared"}}


@pytest.mark.parametrize(
    ("tenants", "pools"),
    [
        (TENANTS | {"d": {"users": ["dan"]}}, {"d"}),
        ({name: TENANTS[name] for name in "bc"}, {"a"}),
        (TENANTS | {"a": {"users": ["ann", "amy"], "statement_timeout": 9}}, {"a"}),
        (TENANTS | {"c": {"users": ["eve"], "pool": "shared", "in_flight": 1}}, {"default"}),
        (TENANTS | {"d": {"users": ["dan"], "pool": "shared"}}, {"default"}),
    ],
    ids=name_of,
)
def test_a_changed_tenant_concerns_its_workers_and_changed_queues_beat_and_the_init_job(
    tenants: dict[str, Any], pools: set[str]
) -> None:
    before = plan("test", {"topology": "multi-tenant", "tenants": TENANTS})
    after = plan("test", {"topology": "multi-tenant", "tenants": tenants})
    assert restarted(before, after) == ({"init", "beat"} if before.celery.queues != after.celery.queues else set())
    of_pools = [
        {pool.name: (pool.queues, readers.of_pool(topology, pool.name)) for pool in topology.pools}
        for topology in (before, after)
    ]
    assert {name for name in {*of_pools[0], *of_pools[1]} if of_pools[0].get(name) != of_pools[1].get(name)} == pools
