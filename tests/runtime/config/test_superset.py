"""The real Superset, started from every stack's topology: it reads every setting that we emit, and has our values."""

from __future__ import annotations

import json
import subprocess
from typing import Any, get_args

import pytest

from local import binaries
from runtime.config import render
from tests.runtime.config.names import unread_cache, unread_celery, unread_settings
from tests.runtime.conftest import PROJECT, Prepared, run_script
from tests.runtime.stacks import STACKS, environment, topology
from topology.model import Purpose, Topology
from topology.settings.workers import Compression

pytestmark = pytest.mark.superset

CACHES: dict[str, Purpose] = {
    "cache": "metadata_cache",
    "data_cache": "data_cache",
    "filter_state_cache": "filter_state",
    "explore_form_data_cache": "explore_form_data",
}


@pytest.fixture(scope="module")
def topologies(prepared: Prepared) -> dict[str, Topology]:
    """Every stack file's topology as it is, but for the metadata database's address: nothing else is contacted at start."""
    return {stack: prepared.services.on_loopback(topology(stack)) for stack in STACKS}


@pytest.fixture(scope="module")
def probed(prepared: Prepared, topologies: dict[str, Topology]) -> dict[str, Any]:
    environments = {
        stack: prepared.services.process_environment(plan, "web", f"probe-{stack}") for stack, plan in topologies.items()
    }
    file = prepared.services.folder / "probe.json"
    file.write_text(json.dumps(environments))
    return run_script("config.probe_process", prepared.environment("web"), str(file))


@pytest.mark.parametrize("stack", STACKS)
def test_every_setting_is_one_that_something_installed_reads(stack: str, probed: dict[str, Any]) -> None:
    settings: dict[str, Any] = render(topology(stack), environment(topology(stack)))
    known = probed["known"]
    assert len(known["celery"]) > 100
    assert unread_settings(settings) == set()
    assert unread_celery(settings["CELERY_CONFIG"], known) == set()
    assert unread_cache(settings["GLOBAL_ASYNC_QUERIES_CACHE_BACKEND"], known) == set()
    for name in (key for key in settings if key.endswith("CACHE_CONFIG")):
        assert unread_settings(settings[name]) == set(), name
    assert set(settings["FEATURE_FLAGS"]) <= set(known["feature_flags"])


def test_every_compression_that_a_stack_may_say_is_installed(probed: dict[str, Any]) -> None:
    """With one that is not, every submission fails."""
    assert set(get_args(Compression)) - {"none"} <= set(probed["known"]["compressions"])


def test_an_invented_name_is_found(probed: dict[str, Any]) -> None:
    invented = {
        "ASYNC_QUERY_JWT_SECRET",
        "CELERY_BROKER_URL",
        "SUPERSET_ASYNC_QUERY_EXECUTION_TIMEOUT",
        "RESULTS_BACKEND_PATH",
        "QUERY_CACHE_DEFAULT_TIMEOUT",
        "CACHE_JITTER_RATIO",
        "SUPERSET_WEBSERVER_WORKERS",
    }
    assert unread_settings(invented | {"SECRET_KEY"}) == invented
    plan = topology("minimal")
    settings: dict[str, Any] = render(plan, environment(plan))
    celery: dict[str, Any] = settings["CELERY_CONFIG"]
    celery["task_hard_time_limit"] = 1
    celery["broker_transport_options"] |= {"visibility": 1}
    assert unread_celery(celery, probed["known"]) == {"task_hard_time_limit", "broker_transport_options.visibility"}
    cache = {"CACHE_REDIS_HOSTNAME": "x", "CACHE_OPTIONS": {"sentinel_socket_timeout": 1, "timeout": 1}}
    assert unread_cache(cache, probed["known"]) == {"CACHE_REDIS_HOSTNAME", "CACHE_OPTIONS.timeout"}


#: Settings that are objects once Superset has them.
MADE = {
    "CELERY_CONFIG",
    "RESULTS_BACKEND",
    "DB_CONNECTION_MUTATOR",
    "FLASK_APP_MUTATOR",
    "EVENT_LOGGER",
    "STATS_LOGGER",
}


@pytest.mark.parametrize("stack", STACKS)
def test_superset_starts_and_keeps_every_value(
    stack: str, probed: dict[str, Any], topologies: dict[str, Topology], prepared: Prepared
) -> None:
    started = probed["started"][stack]
    assert "error" not in started, started.get("error")
    env = prepared.services.process_environment(topologies[stack], "web", f"probe-{stack}")
    settings: dict[str, Any] = render(topologies[stack], env)
    config, conf = started["config"], started["celery"]
    for name, value in settings.items():
        if name not in MADE:
            assert config[name] == json.loads(json.dumps(value)), name
    celery: dict[str, Any] = settings["CELERY_CONFIG"]
    for name, value in celery.items():
        # These hold objects; the limits among the annotations are looked at below.
        if name not in ("task_routes", "beat_schedule", "task_annotations"):
            assert conf[name] == json.loads(json.dumps(value)), name
    assert conf["beat_schedule"].keys() == celery["beat_schedule"].keys()


@pytest.mark.parametrize("stack", STACKS)
def test_what_superset_makes_of_it_is_the_topologys(
    stack: str, probed: dict[str, Any], topologies: dict[str, Topology]
) -> None:
    started, plan = probed["started"][stack], topologies[stack]
    limits = {"soft_time_limit": plan.celery.soft_time_limit_seconds, "time_limit": plan.celery.time_limit_seconds}
    for task in ("sql_lab.get_sql_results", "load_chart_data_into_cache", "load_explore_json_into_cache"):
        found = started["tasks"][task]
        assert {key: found[key] for key in limits} == limits
        assert found["acks_late"] is found["reject_on_worker_lost"] is plan.celery.acks_late
    assert set(started["queues"]) == set(plan.celery.queues)
    expected = "tenant-a" if plan.tenants else "default"
    assert started["routes"].pop("sql_lab.get_sql_results") == expected
    assert {"reports.scheduler", "reports.execute", "cache-warmup", "prune_query"} <= set(started["routes"])
    assert set(started["routes"].values()) == {"default"}
    for job in plan.beat.jobs:
        if not job.task.startswith("celery."):
            assert set(job.kwargs) <= set(started["tasks"][job.task]["parameters"])
    sentinel = any(instance.sentinel for instance in plan.redis)
    for cache, purpose in CACHES.items():
        database = plan.database(purpose)
        found = started["caches"][cache]
        assert found["type"] == "Cache"
        assert (found["prefix"], found["timeout"]) == (database.prefix, database.default_ttl_seconds)
        assert (f"service={database.instance}" if sentinel else f"db={database.number}") in found["client"]
    assert started["results"]["prefix"] == plan.database("query_results").prefix
    assert (f"service={plan.database('async_events').instance}" if sentinel else "db=2") in started["events"]
    assert started["limiter"] == {"storage": "RedisSentinelStorage" if sentinel else "RedisStorage", "enabled": True}
    if plan.celery.result_backend == "postgresql":
        assert started["result_backend"] == "celery.backends.database.DatabaseBackend"
    else:
        assert (
            started["result_backend"]
            == f"runtime.broker.result_backends.{'SentinelBackend' if sentinel else 'RedisBackend'}"
        )
    connections = plan.web.connections
    assert started["pool"] == {
        "size": connections.size,
        "overflow": connections.max_overflow,
        "recycle": connections.recycle_seconds,
        "ping": True,
    }


def test_the_response_headers_are_supersets_own_but_for_its_telemetry(prepared: Prepared) -> None:
    """Ours are written out: a newer Superset's must not be lost."""
    program = "import json; from superset import config; print(json.dumps(config.TALISMAN_CONFIG))"
    env = {**prepared.environment("web")}
    del env["SUPERSET_CONFIG_PATH"]
    done = subprocess.run(
        [str(binaries.superset_python()), "-c", program], env=env, cwd=PROJECT, check=True, capture_output=True, text=True
    )
    shipped = json.loads(done.stdout.strip().splitlines()[-1])
    plan = topology("minimal")
    for telemetry in (True, False):
        web = plan.web.model_copy(update={"telemetry": telemetry})
        changed = plan.model_copy(update={"web": web})
        ours = json.loads(json.dumps(render(changed, environment(changed))["TALISMAN_CONFIG"]))
        images = shipped["content_security_policy"]["img-src"]
        if not telemetry:
            shipped["content_security_policy"]["img-src"] = [host for host in images if "scarf.sh" not in host]
        assert ours == shipped
