"""What a stack file may say, and what is said of one that says something else."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery.schedules import crontab
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from topology import presets, stack_file
from topology.plan import plan
from topology.problems import StackError
from topology.settings import read
from topology.settings.section import fields_by_key
from topology.settings.values import Cron

SHIPPED = ("local", "minimal", "enterprise", "high-throughput", "multi-tenant", "aws-enterprise", "aws-multi-tenant")


def problems_of(config: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(StackError) as caught:
        plan("wrong", config)
    return [(problem.key, str(problem)) for problem in caught.value.problems]


@pytest.mark.parametrize("stack", SHIPPED)
def test_every_shipped_stack_is_a_topology(stack: str) -> None:
    topology = plan(stack, stack_file.read(stack))
    assert topology.stack == stack
    assert type(topology).model_validate_json(topology.model_dump_json()) == topology


def test_the_shipped_stacks_are_those_of_the_folder() -> None:
    assert set(stack_file.names()) == set(SHIPPED)


def test_five_mistakes_of_five_kinds_are_five_messages_in_one_run() -> None:
    found = problems_of(
        {
            "topology": "minimal",
            "workres": {"concurrency": 2},
            "web": {"threads": "many"},
            "redis": {"broker": {"maxmemory_policy": "allkeys-lru"}},
            "images": {"redis": "valkey/valkey:latest"},
            "celery": {"queues": ["default", "reports"]},
        }
    )
    assert [key for key, _ in found] == [
        "celery.queues",
        "images.redis",
        "redis.broker.maxmemory_policy",
        "web.threads",
        "workres",
    ]


@pytest.mark.parametrize(
    ("config", "key", "says"),
    [
        ({"topolgy": "minimal"}, "topolgy", "Did you mean 'topology'?"),
        ({"topology": "minimial"}, "topology", "Did you mean 'minimal'?"),
        ({}, "topology", "must be one of minimal, enterprise, high-throughput, multi-tenant"),
        ({"topology": "minimal", "webb": {}}, "webb", "Did you mean 'web'?"),
        ({"topology": "minimal", "web": {"procesess": 2}}, "web.procesess", "Did you mean 'processes'?"),
        (
            {"topology": "minimal", "redis": {"broker": {"resources": {"memory_limt": "1Gi"}}}},
            "redis.broker.resources.memory_limt",
            "Did you mean 'memory_limit'?",
        ),
        (
            {"topology": "minimal", "pools": {"heavy": {"concurency": 2}}},
            "pools.heavy.concurency",
            "Did you mean 'concurrency'?",
        ),
        ({"topology": "minimal", "pools": {"Heavy_Pool": {}}}, "pools.Heavy_Pool", "lower-case letters"),
        ({"topology": "minimal", "web": {"threads": 0}}, "web.threads", "greater than or equal to 1"),
        # What the topology calls it is no key.
        (
            {"topology": "minimal", "web": {"request_timeout_seconds": 9}},
            "web.request_timeout_seconds",
            "'request_timeout'?",
        ),
        ({"topology": "minimal", "web": {"threads": True}}, "web.threads", "valid integer"),
        ({"topology": "minimal", "web": 3}, "web", "dictionary"),
        ({"topology": "minimal", "platform": "docker"}, "platform", "'local', 'kubernetes' or 'aws'"),
        ({"topology": "minimal", "postgres": {"volume_size": "5 GB"}}, "postgres.volume_size", "512Mi or 2Gi"),
        ({"topology": "minimal", "web": {"resources": {"cpu_limit": "1 core"}}}, "web.resources.cpu_limit", "500m or 1.5"),
        ({"topology": "minimal", "images": {"postgres": "postgres"}}, "images.postgres", "a tag other than latest"),
        ({"topology": "minimal", "maintenance": {"cron": "daily"}}, "maintenance.cron", "five fields"),
        ({"topology": "minimal", "maintenance": {"cron": "17 3 * * 7"}}, "maintenance.cron", "is no schedule"),
        ({"topology": "minimal", "maintenance": {"cron": "60 3 * * *"}}, "maintenance.cron", "is no schedule"),
        ({"topology": "minimal", "maintenance": {"cron": "1 1 1 1 fri-mon"}}, "maintenance.cron", "runs backwards"),
        (
            {"topology": "minimal", "postgres": {"backup": {"cron": "17 3 * * 7", "keep": 1, "volume_size": "1Gi"}}},
            "postgres.backup.cron",
            "is no schedule",
        ),
        ({"topology": "minimal", "databases": {"x": {"uri": "lake"}}}, "databases.x.uri", "no SQLAlchemy URI"),
        ({"topology": "minimal", "databases": {"x": {"uri": "trino://h:x/d"}}}, "databases.x.uri", "no SQLAlchemy URI"),
        ({"topology": "minimal", "redis": {"cache": {"replicas": 1}}}, "redis.cache.maxmemory", "must be given"),
        (
            {"topology": "enterprise", "caching": {"spill": {"above": "1Mi", "folder": "/results"}}},
            "caching.spill.claim",
            "Name an existing claim with ReadWriteMany",
        ),
        (
            {"topology": "minimal", "caching": {"spill": {"above": "64Mi", "folder": "/results", "claim": "results"}}},
            "caching.spill.above",
            "nothing would be spilled",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key_and_the_way_out(config: dict[str, Any], key: str, says: str) -> None:
    found = dict(problems_of(config))
    assert key in found, found
    assert says in found[key]


FIELDS = st.text("0123456789*/,-", min_size=1, max_size=5) | st.sampled_from(["*", "sun", "mon-fri", "fri-mon", "7", "*/15"])


@given(st.lists(FIELDS, min_size=5, max_size=5))
def test_a_schedule_that_is_accepted_is_one_for_celery_and_for_a_cron_job(fields: list[str]) -> None:
    """Each field alone, in its place: what passes must not be refused where it is read, in the pods."""
    for place, field in enumerate(fields):
        value = " ".join(field if index == place else "*" for index in range(5))
        try:
            TypeAdapter[str](Cron).validate_python(value)
        except ValidationError:
            continue
        minute, hour, day_of_month, month, day_of_week = value.split(" ")
        assert crontab(minute, hour, day_of_week, day_of_month, month).remaining_estimate(datetime(2026, 1, 1, tzinfo=UTC))
        for part in field.split(","):
            # The grammar of Kubernetes' own parser.
            found = re.fullmatch(r"(?:\*|(\d+|[a-z]{3})(?:-(\d+|[a-z]{3}))?)(?:/[1-9]\d*|/0+[1-9]\d*)?", part)
            assert found, value


MISSPELT = ("superset-asnyc:web", "superset_async:web", "Superset-Async:web", "superset:web", "web")


@pytest.mark.parametrize("platform", ["local", "kubernetes"])
@pytest.mark.parametrize(
    ("extra", "key", "says"),
    [
        *((f"  {key}: {{}}\n", key, "Write it as superset-async:web") for key in MISSPELT),
        ("  superset-async:row_limit: 1\n  superset-async:row_limit: 2\n", "stack", "'superset-async:row_limit' twice"),
        ("  superset-async:web: {threads: 1, threads: 2}\n", "stack", "has the key 'threads' twice, in lines 4"),
        ("config:\n  superset-async:row_limit: 1\n", "stack", "has the key 'config' twice, in lines 1 and 4"),
    ],
)
def test_a_stack_file_has_no_key_that_nobody_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, extra: str, key: str, says: str
) -> None:
    """Whoever reads it: up, render and policy read it here."""
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    file = tmp_path / "Pulumi.typo.yaml"
    head = f"config:\n  superset-async:topology: minimal\n  superset-async:platform: {platform}\n"
    file.write_text(head + "  kubernetes:context: prod\n  aws:region: eu-west-1\n")
    assert set(stack_file.read("typo")) == {"topology", "platform"}
    file.write_text(head + extra)
    with pytest.raises(StackError) as caught:
        stack_file.read("typo")
    assert [(problem.key, says in str(problem)) for problem in caught.value.problems] == [(key, True)]


def test_a_preset_that_lacks_a_required_key_is_an_error_and_no_endless_search(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = presets.settings_of("minimal")
    del whole["row_limit"]
    monkeypatch.setattr(presets, "settings_of", lambda topology, on_aws=False: copy.deepcopy(whole))
    with pytest.raises(ValidationError, match="row_limit"):
        read({"topology": "minimal", "web": {"threads": "many"}})


def test_a_wrong_value_of_a_required_key_is_not_missing_as_well() -> None:
    cache = presets.settings_of("enterprise")["redis"]["cache"]
    found = problems_of({"topology": "minimal", "redis": {"cache": cache | {"maxmemory": "much"}}})
    assert [key for key, _ in found] == ["redis.cache.maxmemory"]
    assert "512Mi or 2Gi" in found[0][1]


def test_a_bare_number_of_a_cpu_share_is_one_of_cores_in_a_stack_file_alone() -> None:
    resources = {"cpu_request": 1, "cpu_limit": 2.5}
    topology = plan("cores", {"topology": "minimal", "web": {"resources": resources}})
    assert (topology.web.resources.cpu_request_millis, topology.web.resources.cpu_limit_millis) == (1000, 2500)
    assert type(topology).model_validate_json(topology.model_dump_json()) == topology


def test_a_password_in_a_uri_is_refused_and_not_repeated() -> None:
    [(key, message)] = problems_of(
        {"topology": "minimal", "databases": {"sales": {"uri": "postgresql://bi:hunter2@db.internal/sales"}}}
    )
    assert key == "databases.sales.uri"
    assert "hunter2" not in message
    assert "--secret" in message


def test_a_wrong_key_does_not_raise_questions_about_the_keys_beside_it() -> None:
    # time_limit falls back to the preset's 600 for the check; that soft_time_limit is above it must not be reported.
    found = problems_of({"topology": "minimal", "celery": {"soft_time_limit": 700, "time_limit": "800s"}})
    assert "celery.time_limit" in dict(found)
    assert "celery.soft_time_limit" not in dict(found)


@pytest.mark.parametrize("topology", presets.NAMES)
def test_any_field_of_a_preset_can_be_overridden_alone(topology: str) -> None:
    def leaves(node: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
        found: list[tuple[tuple[str, ...], Any]] = []
        for key, value in node.items():
            found += leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
        return found

    preset = presets.settings_of(topology)  # type: ignore[arg-type]
    checked = 0
    for path, value in leaves(preset):
        if type(value) is not int:
            continue
        override: dict[str, Any] = {path[-1]: value + 1}
        for key in reversed(path[:-1]):
            override = {key: override}
        reading = read({"topology": topology} | override)
        assert not reading.problems, path
        node: Any = reading.settings
        for key in path:
            node = node[key] if isinstance(node, dict) else getattr(node, fields_by_key(type(node))[key][0])
        assert node == value + 1, path
        checked += 1
    assert checked > 30
