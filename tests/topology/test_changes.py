"""What a change of a living stack is: safe, told, or refused with its steps; in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from topology import changes
from topology.model import Topology
from topology.plan import plan
from topology.presets import merge

TENANT = {"users": ["ann"], "pool": "shared"}
EXISTING = {"kind": "existing", "host": "db.example.com", "cidrs": ["10.8.0.0/24"], "max_connections": 900, "backup": None}
BACKUP = {"postgres": {"backup": {"cron": "0 3 * * *", "keep": 7, "volume_size": "5Gi"}}}
SENTINEL = {"redis": {"broker": {"replicas": 2, "sentinel": True}}}
SINGLE = {"redis": {"broker": {"replicas": 0, "sentinel": False}}}
FIXED = {"workers": {"scaling": None, "min_workers": 2, "max_workers": 2}}


def planned(config: dict[str, Any]) -> Topology:
    return plan("lives", {"platform": "kubernetes", "topology": "minimal", **config})


def stored(topology: Topology) -> dict[str, Any]:
    """A plan as the ConfigMap of the stack has it."""
    return json.loads(topology.model_dump_json())


def refused(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {problem.key for problem in changes.refused(stored(planned(before)), planned(after))}


Case = tuple[dict[str, Any], dict[str, Any], set[str], set[str]]
#: Two stacks, what is refused on the way from the first to the second, and on the way back.
CASES: dict[str, Case] = {
    "nothing": ({}, {}, set(), set()),
    "labels": ({}, {"labels": {"team": "data"}}, set(), set()),
    "the image": ({}, {"images": {"superset": "registry.example.com/superset:2"}}, set(), set()),
    "a minor version": ({}, {"images": {"postgres": "postgres:18.9"}}, set(), set()),
    "a major version": ({}, {"images": {"postgres": "postgres:17.4"}}, {"images.postgres"}, {"images.postgres"}),
    "an image without a version": (
        {},
        {"images": {"postgres": "registry:5000/own/postgres@sha256:" + "0" * 64}},
        {"images.postgres"},
        {"images.postgres"},
    ),
    "a larger volume": (
        {},
        {"redis": {"broker": {"volume_size": "9Gi"}}, "postgres": {"volume_size": "9Gi"}},
        {"redis.broker.volume_size", "postgres.volume_size"},
        {"redis.broker.volume_size", "postgres.volume_size"},
    ),
    "larger dumps": (
        BACKUP,
        merge(BACKUP, {"postgres": {"backup": {"volume_size": "9Gi"}}}),
        {"postgres.backup.volume_size"},
        {"postgres.backup.volume_size"},
    ),
    "dumps": ({"postgres": {"backup": None}}, BACKUP, set(), {"postgres.backup"}),
    "storage class": ({}, {"storage_class": "fast"}, {"storage_class"}, {"storage_class"}),
    "namespace": ({}, {"namespace": "other"}, {"namespace"}, {"namespace"}),
    "somebody else's namespace": ({}, {"existing_namespace": True}, {"existing_namespace"}, {"existing_namespace"}),
    "role": ({}, {"postgres": {"user": "reports"}}, {"postgres.user"}, {"postgres.user"}),
    "database": ({}, {"postgres": {"database": "reports"}}, {"postgres.database"}, {"postgres.database"}),
    "port": ({}, {"postgres": {"port": 5433}}, {"postgres.port"}, {"postgres.port"}),
    "existing server": ({}, {"postgres": EXISTING}, {"postgres.kind"}, {"postgres.kind"}),
    "another existing server": (
        {"postgres": EXISTING},
        {"postgres": {**EXISTING, "host": "other.example.com"}},
        {"postgres.host"},
        {"postgres.host"},
    ),
    "Sentinel": (
        {"topology": "enterprise", **SINGLE},
        {"topology": "enterprise", **SENTINEL},
        {"redis.broker.sentinel", "redis.broker.replicas"},
        {"redis.broker.sentinel", "redis.broker.replicas"},
    ),
    "a further replica": (
        {"topology": "enterprise"},
        {"topology": "enterprise", "redis": {"broker": {"replicas": 3}}},
        set(),
        set(),
    ),
    "preset": (
        {},
        {"topology": "enterprise"},
        {"redis.broker", "postgres.volume_size"},
        {"redis.broker", "postgres.volume_size", "postgres.backup"},
    ),
    "scaler": ({"topology": "enterprise"}, {"topology": "enterprise", **FIXED}, set(), set()),
    "shared or dedicated tenant": (
        {"topology": "multi-tenant", "tenants": {"acme": TENANT}},
        {"topology": "multi-tenant", "tenants": {"acme": {**TENANT, "pool": "dedicated"}}},
        set(),
        set(),
    ),
    "renamed tenant": (
        {"topology": "multi-tenant", "tenants": {"acme": TENANT}},
        {"topology": "multi-tenant", "tenants": {"bolt": TENANT}},
        {"celery.queues.acme"},
        {"celery.queues.bolt"},
    ),
    "a further tenant": (
        {"topology": "multi-tenant", "tenants": {"acme": TENANT}},
        {"topology": "multi-tenant", "tenants": {"acme": TENANT, "bolt": {"users": ["bob"], "pool": "shared"}}},
        set(),
        {"celery.queues.bolt"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_safe_or_refused_in_both_directions(name: str) -> None:
    before, after, there, back = CASES[name]
    assert refused(before, after) == there
    assert refused(after, before) == back


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2]])
def test_a_refusal_names_its_steps_and_is_accepted_by_its_key(name: str) -> None:
    old, new = stored(planned(CASES[name][0])), planned(CASES[name][1])
    found = changes.problems(old, new, [])
    assert found
    for problem in found:
        smaller = "cannot be made smaller" in problem.rule
        assert smaller or f"{changes.ACCEPT_ENV}={problem.key} pulumi up" in problem.fix
        rest = changes.problems(old, new, [problem.key])
        assert problem.key not in {each.key for each in rest}


def test_what_is_accepted_and_does_not_change_is_told() -> None:
    old = stored(planned({}))
    (problem,) = changes.problems(old, planned({"labels": {"team": "data"}}), ["postgres.user", ""])
    assert (problem.key, problem.value) == (changes.ACCEPT_ENV, "postgres.user")


def test_a_smaller_volume_is_accepted_by_nothing_but_its_former_size() -> None:
    larger, now = stored(planned({"postgres": {"volume_size": "9Gi"}})), planned({})
    (problem,) = changes.problems(larger, now, [])
    assert changes.problems(larger, now, [problem.key]) == (problem,)
    assert "cannot be made smaller" in problem.rule
    assert "Set it to 9Gi again" in problem.fix


def test_a_plan_of_another_version_is_no_change_where_it_says_nothing() -> None:
    old = stored(planned({}))
    for key in ("existing_namespace", "storage_class", "redis", "redis_databases", "pools", "images", "postgres"):
        del old[key]
    assert changes.refused(old, planned({})) == ()
    assert changes.told(old, planned({})) == ()


def told(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "\n".join(changes.told(stored(planned(before)), planned(after)))


def test_what_stops_or_is_handed_over_is_told() -> None:
    assert told({}, {"labels": {"team": "data"}}) == ""
    assert "a scaler decides the workers from now on" in told(
        {"topology": "enterprise", **FIXED}, {"topology": "enterprise"}
    )
    assert "2 will run" in told({"topology": "enterprise"}, {"topology": "enterprise", **FIXED})
    assert "get pvc --selector app.kubernetes.io/component=redis" in told({}, {"topology": "enterprise"})
    memory = {"postgres": {"resources": {"memory_request": "2Gi", "memory_limit": "2Gi"}}}
    assert "the one metadata server restarts" in told({}, memory)


def test_a_further_worker_restarts_the_metadata_server_only_where_its_connections_are_passed() -> None:
    def connections(most: int) -> int:
        return planned({"topology": "enterprise", "workers": {"max_workers": most}}).postgres.max_connections

    found = [connections(most) for most in range(4, 60)]
    assert found == sorted(found)
    assert len(set(found)) <= 4
    before, after = (
        {"topology": "enterprise", "workers": {"max_workers": most}}
        for most in next((n, n + 1) for n in range(4, 60) if connections(n) != connections(n + 1))
    )
    assert "postgres.max_connections" in told(before, after)
