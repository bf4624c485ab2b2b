"""The renderer: a topology and an environment become Superset's settings, without Superset."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.config import render
from runtime.config.objects import Crontab, ResultStore
from runtime.environment.process_topology import load_topology
from runtime.environment.redis_databases import Database
from runtime.environment.secrets import ConfigurationError
from runtime.queries.retention import PRUNE_TASKS
from tests.runtime.stacks import ODD_PASSWORD, REDIS_PASSWORDS, STACKS, environment, topology
from topology.model import Purpose, Topology

TOPOLOGIES = {stack: topology(stack) for stack in STACKS}
SENTINEL_STACKS = {"enterprise", "high-throughput", "multi-tenant"}


def split(url: str) -> SplitResult:
    return urlsplit(url)


def rendered(stack: str, role: str = "web") -> dict[str, Any]:
    return render(TOPOLOGIES[stack], environment(TOPOLOGIES[stack], role))


@pytest.mark.parametrize("stack", STACKS)
def test_limits_are_the_topologys_in_every_place_that_reads_them(stack: str) -> None:
    plan, settings = TOPOLOGIES[stack], rendered(stack)
    celery = settings["CELERY_CONFIG"]
    soft, hard = plan.celery.soft_time_limit_seconds, plan.celery.time_limit_seconds
    assert (celery["task_soft_time_limit"], celery["task_time_limit"]) == (soft, hard)
    annotation = celery["task_annotations"]["sql_lab.get_sql_results"]
    assert (annotation["soft_time_limit"], annotation["time_limit"]) == (soft, hard)
    assert set(celery["task_annotations"]) == {
        "sql_lab.get_sql_results",
        "load_chart_data_into_cache",
        "load_explore_json_into_cache",
        *PRUNE_TASKS,
    }
    visibility = plan.celery.visibility_timeout_seconds
    assert celery["broker_transport_options"]["visibility_timeout"] == visibility > hard > soft
    assert celery["result_backend_transport_options"]["visibility_timeout"] == visibility
    assert celery["visibility_timeout"] == visibility
    assert settings["SQLLAB_ASYNC_TIME_LIMIT_SEC"] == soft
    assert settings["DB_CONNECTION_MUTATOR"].default_seconds == plan.statement_timeout_seconds < soft
    assert settings["SQL_MAX_ROW"] == plan.row_limit


@pytest.mark.parametrize("stack", STACKS)
def test_queues_acknowledgement_and_schedule_are_the_topologys(stack: str) -> None:
    plan, celery = TOPOLOGIES[stack], rendered(stack)["CELERY_CONFIG"]
    assert tuple(celery["task_queues"]) == plan.celery.queues
    assert celery["task_default_queue"] == plan.celery.default_queue
    assert celery["task_create_missing_queues"] is False
    assert celery["task_acks_late"] is celery["task_reject_on_worker_lost"] is plan.celery.acks_late
    assert celery["task_compression"] == (None if plan.celery.compression == "none" else plan.celery.compression)
    assert celery["result_expires"] == plan.celery.result_expires_seconds
    assert {name: (entry["task"], entry["kwargs"]) for name, entry in celery["beat_schedule"].items()} == {
        job.name: (job.task, job.kwargs) for job in plan.beat.jobs
    }
    assert celery["beat_schedule"]["queries"]["schedule"] == Crontab("17", "3", "*", "*", "*")


@pytest.mark.parametrize("stack", STACKS)
def test_every_purpose_is_on_its_own_database_with_its_lifetime(stack: str) -> None:
    plan, settings = TOPOLOGIES[stack], rendered(stack)
    celery = settings["CELERY_CONFIG"]
    scheme = "sentinel" if stack in SENTINEL_STACKS else "redis"
    broker = split(celery["broker_url"])
    assert (broker.scheme, broker.path) == (scheme, "/0")
    if plan.celery.result_backend == "postgresql":
        assert celery["result_backend"].startswith("db+postgresql+psycopg2://")
    else:
        assert (split(celery["result_backend"]).scheme, split(celery["result_backend"]).path) == (scheme, "/1")
    purposes: dict[str, Purpose] = {
        "CACHE_CONFIG": "metadata_cache",
        "DATA_CACHE_CONFIG": "data_cache",
        "FILTER_STATE_CACHE_CONFIG": "filter_state",
        "EXPLORE_FORM_DATA_CACHE_CONFIG": "explore_form_data",
    }
    for name, purpose in purposes.items():
        database = plan.database(purpose)
        assert settings[name]["CACHE_TYPE"] == "runtime.superset.caches.Cache"
        assert settings[name]["CACHE_ARGS"] == [purpose]
        assert settings[name]["CACHE_KEY_PREFIX"] == database.prefix != ""
        assert settings[name]["CACHE_DEFAULT_TIMEOUT"] == database.default_ttl_seconds
    events = settings["GLOBAL_ASYNC_QUERIES_CACHE_BACKEND"]
    assert events["CACHE_REDIS_DB"] == plan.database("async_events").number
    results = settings["RESULTS_BACKEND"]
    assert isinstance(results, ResultStore)
    assert results.database.number == plan.database("query_results").number
    assert settings["CACHE_DEFAULT_TIMEOUT"] == plan.caching.query_results_ttl_seconds
    assert settings["DATA_CACHE_CONFIG"]["CACHE_DEFAULT_TIMEOUT"] == plan.caching.chart_data_ttl_seconds


@pytest.mark.parametrize("stack", STACKS)
def test_everyone_logs_in_as_the_user_of_what_they_touch(stack: str) -> None:
    plan, settings = TOPOLOGIES[stack], rendered(stack)
    celery = settings["CELERY_CONFIG"]
    sentinel = stack in SENTINEL_STACKS

    def user(section: dict[str, Any]) -> tuple[set[str], str]:
        options = section["CACHE_OPTIONS"]
        asked = {options["sentinel_username"]} if sentinel else set[str]()
        return {options["username"], *asked}, section["CACHE_REDIS_PASSWORD"]

    assert (split(celery["broker_url"]).username, unquote(split(celery["broker_url"]).password or "")) == (
        "broker",
        REDIS_PASSWORDS["broker"],
    )
    if plan.celery.result_backend == "redis":
        assert split(celery["result_backend"]).username == "broker"
    assert user(settings["GLOBAL_ASYNC_QUERIES_CACHE_BACKEND"]) == ({"broker"}, REDIS_PASSWORDS["broker"])
    results = settings["RESULTS_BACKEND"].database
    assert (results.username, results.password) == ("cache", REDIS_PASSWORDS["cache"])
    limits = settings["RATELIMIT_STORAGE_OPTIONS"] if sentinel else None
    username = limits["username"] if limits else split(settings["RATELIMIT_STORAGE_URI"]).username
    assert username == "cache"


def test_sentinel_is_asked_for_the_primary_everywhere() -> None:
    settings = rendered("enterprise")
    celery = settings["CELERY_CONFIG"]
    assert split(celery["broker_url"]).hostname == "redis-broker-sentinel"
    assert celery["broker_transport_options"]["master_name"] == "redis-broker"
    asked = celery["broker_transport_options"]["sentinel_kwargs"]
    assert (asked["username"], asked["password"]) == ("broker", REDIS_PASSWORDS["broker"])
    results = settings["RESULTS_BACKEND"].database
    assert (results.host, results.port, results.service) == ("redis-cache-sentinel", 26379, "redis-cache")
    assert settings["GLOBAL_ASYNC_QUERIES_CACHE_BACKEND"]["CACHE_REDIS_SENTINELS"] == [("redis-broker-sentinel", 26379)]
    assert settings["GLOBAL_ASYNC_QUERIES_CACHE_BACKEND"]["CACHE_REDIS_SENTINEL_MASTER"] == "redis-broker"
    assert settings["RATELIMIT_STORAGE_URI"] == "redis+sentinel://redis-cache-sentinel:26379/redis-cache"
    high = rendered("high-throughput")["CELERY_CONFIG"]
    assert high["result_backend_transport_options"]["master_name"] == "redis-broker"


@pytest.mark.parametrize("stack", STACKS)
def test_a_process_opens_at_most_the_connections_of_its_role(stack: str) -> None:
    plan = TOPOLOGIES[stack]
    most = {"web": plan.web.connections.most, "worker": plan.celery.connections.most, "beat": 2, "init": 1}
    for role, expected in most.items():
        options = rendered(stack, role)["SQLALCHEMY_ENGINE_OPTIONS"]
        assert options["pool_size"] + options["max_overflow"] == expected
        assert options["pool_pre_ping"] is True
        assert options["pool_recycle"] == 300
        assert options["connect_args"]["application_name"] == f"superset-{role}"


@pytest.mark.parametrize(("stack", "https"), [("local", False), ("enterprise", True)])
def test_cookies_need_https_only_where_users_have_it(stack: str, https: bool) -> None:
    settings = rendered(stack)
    assert settings["SESSION_COOKIE_SECURE"] is https
    assert settings["GLOBAL_ASYNC_QUERIES_JWT_COOKIE_SECURE"] is https
    assert settings["ENABLE_PROXY_FIX"] is https
    assert settings["PROXY_FIX_CONFIG"]["x_for"] == int(https)
    assert settings["GUEST_TOKEN_JWT_SECRET"] not in ("test-guest-secret-change-me", settings["SECRET_KEY"])


@given(
    postgres=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1),
    redis=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1),
    stack=st.sampled_from(STACKS),
)
def test_any_password_survives_every_url(postgres: str, redis: str, stack: str) -> None:
    plan = TOPOLOGIES[stack]
    env = (
        environment(plan)
        | {"POSTGRES_PASSWORD": postgres}
        | {each.password_env: redis for each in plan.redis_users().values()}
    )
    settings: dict[str, Any] = render(plan, env)
    celery = settings["CELERY_CONFIG"]
    urls = [
        (settings["SQLALCHEMY_DATABASE_URI"], postgres),
        (celery["broker_url"], redis),
        (celery["result_backend"], postgres if plan.celery.result_backend == "postgresql" else redis),
    ]
    if stack in SENTINEL_STACKS:
        assert settings["RATELIMIT_STORAGE_OPTIONS"]["password"] == redis
    else:
        urls.append((settings["RATELIMIT_STORAGE_URI"], redis))
    for url, password in urls:
        assert unquote(split(url).password or "") == password
        assert split(url).hostname in {
            plan.postgres.host,
            *(each.host for each in plan.redis),
            *(f"{each.name}-sentinel" for each in plan.redis),
        }


def test_web_and_workers_render_the_same_but_for_their_connections() -> None:
    """Cache databases, prefixes, keys, limits and routes cannot differ between the tiers."""
    web, worker = rendered("multi-tenant", "web"), rendered("multi-tenant", "worker")
    assert web.keys() == worker.keys()
    assert {key for key in web if repr(web[key]) != repr(worker[key])} == {"SQLALCHEMY_ENGINE_OPTIONS"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ASYNC_QUERIES_JWT_SECRET": "é" * 15}, ["ASYNC_QUERIES_JWT_SECRET has 30 bytes", "32 or more"]),
        (
            {"SUPERSET_SECRET_KEY": "", "POSTGRES_PASSWORD": ""},
            ["SUPERSET_SECRET_KEY is not set", "POSTGRES_PASSWORD is not"],
        ),
        ({"REDIS_CACHE_PASSWORD": ""}, ["REDIS_CACHE_PASSWORD is not set"]),
        ({"SUPERSET_ASYNC_ROLE": "wsgi"}, ["SUPERSET_ASYNC_ROLE is 'wsgi'", "web, worker, beat, init"]),
    ],
)
def test_a_missing_or_weak_secret_is_named_and_no_value_is_shown(change: dict[str, str], said: list[str]) -> None:
    plan = TOPOLOGIES["enterprise"]
    with pytest.raises(ConfigurationError) as error:
        render(plan, environment(plan) | change)
    for words in said:
        assert words in str(error.value)
    assert ODD_PASSWORD not in str(error.value)
    assert "éé" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{}", "no topology of this version"),
        (json.dumps({"stack": "x", "invented": 1}), "no topology of this version"),
    ],
)
def test_a_wrong_topology_file_is_told_with_its_path(tmp_path: Any, content: str | None, said: str) -> None:
    path = tmp_path / "topology.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=said) as error:
        load_topology({"SUPERSET_ASYNC_TOPOLOGY": str(path)})
    assert str(path) in str(error.value)
    with pytest.raises(ConfigurationError, match="SUPERSET_ASYNC_TOPOLOGY is not set"):
        load_topology({})


@pytest.mark.parametrize("stack", STACKS)
def test_a_topology_file_is_read_back_as_it_was(tmp_path: Any, stack: str) -> None:
    path = tmp_path / "topology.json"
    path.write_text(TOPOLOGIES[stack].model_dump_json())
    read: Topology = load_topology({"SUPERSET_ASYNC_TOPOLOGY": str(path)})
    assert read == TOPOLOGIES[stack]


@pytest.mark.parametrize("stack", ["minimal", "high-throughput"])
def test_over_tls_every_library_verifies_the_server_and_without_it_none_speaks_tls(stack: str) -> None:
    """The broker, results, caches, rows, events and rate limits; and the Sentinels themselves where there are any."""
    plan = topology(stack, redis={"tls": {"kind": "secret", "secret": "redis-tls"}})
    settings: dict[str, Any] = render(plan, environment(plan))
    celery = settings["CELERY_CONFIG"]
    sentinel = stack in SENTINEL_STACKS
    broker_ca, cache_ca = (f"/etc/server-ca/{plan.database(each).instance}/ca.crt" for each in ("broker", "data_cache"))

    def verified(found: dict[str, Any]) -> str:
        assert (found["ssl_cert_reqs"], found["ssl_check_hostname"]) == ("required", True)
        return found["ssl_ca_certs"]

    assert verified(celery["broker_use_ssl"]) == verified(celery["redis_backend_use_ssl"]) == broker_ca
    clients = [(settings["GLOBAL_ASYNC_QUERIES_CACHE_BACKEND"]["CACHE_OPTIONS"], broker_ca)]
    # The caches make their clients as the store of rows does, each of its own purpose's database.
    clients.append((settings["RESULTS_BACKEND"].database.client_options(), cache_ca))
    limits = settings["RATELIMIT_STORAGE_OPTIONS"]
    assert verified(limits) == cache_ca
    if sentinel:
        clients.append((limits, cache_ca))
        for options, authority in clients[:1]:
            assert options["sentinel_ssl"] is True
            assert verified({key.removeprefix("sentinel_"): value for key, value in options.items()}) == authority
        asked = [celery[f"{of}_transport_options"]["sentinel_kwargs"] for of in ("broker", "result_backend")]
        clients += [*((each, broker_ca) for each in asked), (limits["sentinel_kwargs"], cache_ca)]
    else:
        assert settings["RATELIMIT_STORAGE_URI"].startswith("rediss://")
    for options, authority in clients:
        assert options["ssl"] is True
        assert verified(options) == authority
    assert "ssl" not in repr(rendered(stack))


def test_no_secret_is_in_the_repr_of_a_description() -> None:
    password = REDIS_PASSWORDS["cache"]
    database = Database(
        host="h", port=1, number=0, username="cache", password=password, prefix="", ttl_seconds=None, service=None
    )
    assert password not in repr(ResultStore(database))
