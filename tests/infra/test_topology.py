"""Whatever a stack file says: either it is refused, or its topology holds every invariant, stated here a second time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import presets, stackfile
from infra.problems import StackError
from infra.topology import plan
from runtime.model import Topology

GI = 2**30
sizes = st.sampled_from(["64Mi", "256Mi", "384Mi", "512Mi", "1Gi", "2Gi", "4Gi", "6Gi", "8Gi", "20Gi"])
seconds = st.integers(1, 1000)
names = st.sampled_from(["default", "priority", "heavy", "tenant-a", "tenant-b", "celery"])
policies = st.sampled_from(["noeviction", "volatile-lru", "volatile-ttl", "allkeys-lru", "allkeys-random"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A section that says any of `fields`."""
    return st.fixed_dictionaries({}, optional=fields)


resources = some(
    cpu_request=st.sampled_from(["0", "100m", "1", "2"]),
    cpu_limit=st.sampled_from(["100m", "1", "4"]),
    memory_request=sizes,
    memory_limit=sizes,
)
redis = some(
    maxmemory=sizes,
    maxmemory_policy=policies,
    persistence=st.sampled_from(["aof", "rdb", "none"]),
    replicas=st.integers(0, 3),
    sentinel=st.booleans(),
    volume_size=sizes,
    resources=resources,
)
pool = some(
    queues=st.lists(names, min_size=1, max_size=3),
    concurrency=st.integers(1, 8),
    min_workers=st.integers(1, 6),
    max_workers=st.integers(1, 30),
    max_memory_per_child=st.sampled_from(["200M", "300M", "433M", "1Gi"]),
    grace_period=seconds,
)
connections = some(size=st.integers(1, 10), max_overflow=st.integers(0, 20))
stacks = st.fixed_dictionaries(
    {"topology": st.sampled_from(presets.NAMES)},
    optional={
        "platform": st.sampled_from(["local", "kubernetes"]),
        "redis": st.fixed_dictionaries({}, optional={"broker": redis, "cache": st.none() | redis}),
        "postgres": some(max_connections=st.none() | st.integers(10, 3000), reserved_connections=st.integers(0, 50)),
        "web": some(
            min_replicas=st.integers(1, 5), max_replicas=st.integers(1, 5), connections=connections, resources=resources
        ),
        "celery": some(
            result_backend=st.sampled_from(["redis", "postgresql"]),
            default_queue=names,
            queues=st.lists(names, min_size=1, max_size=3),
            acks_late=st.booleans(),
            soft_time_limit=seconds,
            time_limit=seconds,
            visibility_timeout=st.integers(1, 4000),
            connections=connections,
        ),
        "workers": some(
            concurrency=st.integers(1, 8), min_workers=st.integers(1, 9), grace_period=seconds, resources=resources
        ),
        "pools": st.dictionaries(names, pool, max_size=2),
        "tenants": st.dictionaries(
            names, some(users=st.just(["alice"]), concurrency=st.integers(1, 4)).map(lambda t: {"users": []} | t), max_size=2
        ),
        "statement_timeout": seconds,
        "databases": st.dictionaries(
            st.sampled_from(["sales", "events"]), some(statement_timeout=seconds, allow_dml=st.booleans()), max_size=2
        ),
        "maintenance": some(query_retention_days=st.none() | st.integers(1, 90), log_retention_days=st.none()),
    },
)


def assert_invariants(topology: Topology) -> None:
    celery, postgres = topology.celery, topology.postgres
    # 1. routed queues and listeners
    routed = {celery.default_queue, *celery.queues, *(tenant.queue for tenant in topology.tenants)}
    listened = {queue for pool in topology.pools for queue in pool.queues}
    assert routed == set(celery.queues) == listened
    assert len({pool.name for pool in topology.pools}) == len(topology.pools)
    # 2. eviction
    for instance in topology.redis:
        if instance.carries_broker:
            assert not instance.maxmemory_policy.startswith("allkeys")
            assert instance.persistence != "none"
        # 5. memory
        assert instance.maxmemory_bytes <= 0.75 * instance.resources.memory_limit_bytes
        assert instance.volume_bytes >= 2 * instance.maxmemory_bytes
        assert not instance.sentinel or instance.replicas >= 2
    for database in topology.redis_databases:
        instance = topology.instance(database.instance)
        if database.purpose in ("broker", "celery_results", "async_events", "coordination"):
            assert instance.carries_broker
        else:
            assert instance.carries_caches
            assert database.default_ttl_seconds
    numbers = [(database.instance, database.number) for database in topology.redis_databases]
    assert len(set(numbers)) == len(numbers)
    # 3. limits
    assert celery.soft_time_limit_seconds < celery.time_limit_seconds < celery.visibility_timeout_seconds
    for pool in topology.pools:
        assert pool.grace_period_seconds >= celery.soft_time_limit_seconds + 30
        assert pool.min_workers <= pool.max_workers
        if pool.max_memory_per_child_bytes is not None:
            assert pool.max_memory_per_child_bytes > 233_000_000
            assert pool.max_memory_per_child_bytes * pool.concurrency <= pool.resources.memory_limit_bytes
        # 6. scaled pods request CPU
        if pool.scaling:
            assert pool.resources.cpu_request_millis > 0
    for timeout in (topology.statement_timeout_seconds, *(d.statement_timeout_seconds for d in topology.databases)):
        assert timeout < celery.soft_time_limit_seconds
    # 4. connections
    child = celery.connections.size + celery.connections.max_overflow + (celery.result_backend == "postgresql")
    workers = sum(pool.max_workers * pool.concurrency * child for pool in topology.pools)
    web = topology.web.max_replicas * topology.web.processes * topology.web.connections.most
    assert workers + web <= postgres.max_connections - postgres.reserved_connections
    # 7. beat
    jobs = {job.task for job in topology.beat.jobs} if topology.beat else set[str]()
    assert ("celery.backend_cleanup" in jobs) == (celery.result_backend == "postgresql")
    assert topology.beat is None or jobs
    # writes run once
    assert not (celery.acks_late and any(database.allow_dml for database in topology.databases))


ROUTE = {
    "kind": "ingress",
    "host": "superset.example.com",
    "parent": "nginx",
    "tls_secret": "superset-tls",
    "from_namespaces": ["ingress-nginx"],
}
accepted = refused = 0


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stacks)
def test_an_accepted_stack_breaks_no_invariant(config: dict[str, Any]) -> None:
    global accepted, refused  # noqa: PLW0603
    try:
        topology = plan("any", config)
    except StackError as error:
        refused += 1
        assert error.problems
        return
    accepted += 1
    assert_invariants(topology)


def test_the_property_was_tried_on_accepted_and_on_refused_stacks() -> None:
    assert accepted > 50
    assert refused > 50


@pytest.mark.parametrize("stack", stackfile.names())
def test_shipped_stacks_hold_the_invariants(stack: str) -> None:
    assert_invariants(plan(stack, stackfile.read(stack)))


@pytest.mark.parametrize(
    ("topology", "override", "key"),
    [
        ("minimal", {"celery": {"queues": ["default", "lonely"]}}, "celery.queues"),
        ("minimal", {"pools": {"default": {"queues": ["default", "undeclared"]}}}, "pools.default.queues"),
        ("minimal", {"celery": {"default_queue": "celery"}}, "celery.default_queue"),
        ("minimal", {"celery": {"queues": ["default", "default"]}}, "celery.queues"),
        ("minimal", {"tenants": {"default": {"users": []}}}, "tenants.default"),
        ("minimal", {"tenants": {"a": {"users": ["ann"]}, "b": {"users": ["ann"]}}}, "tenants.b.users"),
        ("minimal", {"redis": {"broker": {"maxmemory_policy": "allkeys-lfu"}}}, "redis.broker.maxmemory_policy"),
        ("minimal", {"redis": {"broker": {"maxmemory_policy": "noeviction"}}}, "redis.broker.maxmemory_policy"),
        ("enterprise", {"redis": {"broker": {"persistence": "none"}}}, "redis.broker.persistence"),
        ("enterprise", {"redis": {"cache": {"replicas": 1}}}, "redis.cache.sentinel"),
        ("minimal", {"celery": {"soft_time_limit": 600}}, "celery.soft_time_limit"),
        ("minimal", {"celery": {"visibility_timeout": 600}}, "celery.visibility_timeout"),
        ("minimal", {"statement_timeout": 540}, "statement_timeout"),
        ("minimal", {"databases": {"x": {"statement_timeout": 9999}}}, "databases.x.statement_timeout"),
        ("minimal", {"workers": {"grace_period": 569}}, "workers.grace_period"),
        ("minimal", {"pools": {"default": {"grace_period": 30}}}, "pools.default.grace_period"),
        ("enterprise", {"postgres": {"max_connections": 200}}, "postgres.max_connections"),
        ("minimal", {"redis": {"broker": {"maxmemory": "385Mi"}}}, "redis.broker.maxmemory"),
        ("minimal", {"redis": {"broker": {"volume_size": "767Mi"}}}, "redis.broker.volume_size"),
        ("enterprise", {"workers": {"resources": {"cpu_request": "0"}}}, "workers.resources.cpu_request"),
        ("minimal", {"web": {"resources": {"memory_request": "4Gi"}}}, "web.resources.memory_request"),
        ("minimal", {"beat_resources": {"cpu_request": "2"}}, "beat_resources.cpu_request"),
        ("minimal", {"web": {"min_replicas": 2}}, "web.min_replicas"),
        ("minimal", {"workers": {"min_workers": 3}}, "workers.min_workers"),
        ("multi-tenant", {"tenants": {"a": {"users": [], "min_workers": 30}}}, "tenants.a.min_workers"),
        ("minimal", {"workers": {"max_memory_per_child": "200000Ki"}}, "workers.max_memory_per_child"),
        ("enterprise", {"pools": {"default": {"max_memory_per_child": "900M"}}}, "pools.default.max_memory_per_child"),
        ("enterprise", {"databases": {"x": {"allow_dml": True}}}, "databases.x.allow_dml"),
        ("minimal", {"postgres": {"kind": "existing"}}, "postgres.host"),
        ("minimal", {"postgres": {"host": "db.internal"}}, "postgres.host"),
        ("minimal", {"platform": "local", "redis": {"broker": {"existing": {"host": "h"}}}}, "redis.broker.existing"),
        ("minimal", {"redis": {"broker": {"existing": {"host": "h"}, "replicas": 1}}}, "redis.broker.replicas"),
        (
            "enterprise",
            {"redis": {"cache": {"existing": {"host": "h"}, "replicas": 0}}},
            "redis.cache.sentinel",
        ),
        (
            "minimal",
            {"redis": {"broker": {"existing": {"host": "h", "ca_secret": "c"}}}},
            "redis.broker.existing.ca_secret",
        ),
        ("minimal", {"redis": {"broker": {"existing": {"host": "h", "cidrs": []}}}}, "redis.broker.existing.cidrs"),
        ("minimal", {"redis": {"broker": {"existing": {"host": "h"}}, "tls_secret": "t"}}, "redis.tls_secret"),
        (
            "enterprise",
            {
                "redis": {
                    "broker": {"existing": {"host": "h"}, "replicas": 0, "sentinel": False},
                    "cache": {"existing": {"host": "h"}, "replicas": 0, "sentinel": False},
                }
            },
            "redis.cache.existing.host",
        ),
        ("minimal", {"postgres": {"instances": 3}}, "postgres.instances"),
        ("enterprise", {"postgres": {"kind": "existing", "host": "h", "max_connections": 900}}, "postgres.backup"),
        ("minimal", {"web": {"route": ROUTE | {"tls_secret": None}}}, "web.route.tls_secret"),
        ("minimal", {"web": {"route": ROUTE | {"parent": "infra/public"}}}, "web.route.parent"),
        ("minimal", {"web": {"route": ROUTE | {"kind": "gateway"}}}, "web.route.parent"),
        ("minimal", {"web": {"route": ROUTE | {"host": "superset"}}}, "web.route.host"),
        ("minimal", {"network": {"database_cidrs": ["10.0.0.1/8"]}}, "network.database_cidrs.0"),
        ("minimal", {"databases": {"x": {"sample": True}}}, "databases.x.sample"),
        ("minimal", {"platform": "local", "local": {"web_port": 16379}}, "local.redis_port"),
        ("minimal", {"platform": "local", "postgres": {"kind": "existing", "host": "h"}}, "postgres.kind"),
    ],
)
def test_each_rule_refuses_what_breaks_it(topology: str, override: dict[str, Any], key: str) -> None:
    with pytest.raises(StackError) as caught:
        plan("broken", {"topology": topology} | override)
    assert key in {problem.key for problem in caught.value.problems}, str(caught.value)


def test_an_existing_server_needs_its_host_and_its_limit() -> None:
    existing = {"kind": "existing", "host": "db.internal", "max_connections": 500}
    topology = plan("existing", {"topology": "minimal", "postgres": existing})
    assert (topology.postgres.host, topology.postgres.max_connections) == ("db.internal", 500)


def test_any_topology_runs_on_one_machine() -> None:
    for name in presets.NAMES:
        topology = plan("here", {"topology": name, "platform": "local"})
        assert {instance.host for instance in topology.redis} == {topology.postgres.host} == {"127.0.0.1"}
        assert not any(instance.sentinel or instance.replicas for instance in topology.redis)
        assert len({instance.port for instance in topology.redis} | {topology.postgres.port, topology.web.port}) == (
            len(topology.redis) + 2
        )


def test_max_connections_grow_with_the_workers() -> None:
    few = plan("few", {"topology": "enterprise", "workers": {"max_workers": 2}})
    many = plan("many", {"topology": "enterprise", "workers": {"max_workers": 40}})
    assert many.postgres.max_connections - few.postgres.max_connections >= 38 * 4 * 3
