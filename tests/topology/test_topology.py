"""Whatever a stack file says: either it is refused, or its topology holds every invariant, stated here a second time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topology import presets, stack_file
from topology.model import Peer, Topology
from topology.plan import plan
from topology.problems import StackError

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
people = st.lists(st.sampled_from(["alice", "ann", "bob", "Sales", ""]), max_size=2)
guest = st.fixed_dictionaries(
    {"claim": st.sampled_from(["user.username", "org"]), "value": st.sampled_from(["acme-*", "acme-1", "b*", "bob"])}
)
tenant = some(
    users=people,
    roles=people,
    databases=st.lists(st.sampled_from(["sales", "events", "salse"]), max_size=2),
    guests=st.lists(guest, max_size=2),
    pool=st.sampled_from(["shared", "dedicated"]),
    concurrency=st.integers(1, 4),
    min_workers=st.integers(1, 4),
    max_workers=st.integers(1, 12),
    in_flight=st.integers(1, 5),
    priority=st.sampled_from(["low", "normal", "high"]),
    quota=st.none() | st.fixed_dictionaries({"cpu": st.sampled_from(["1", "8", "50"]), "memory": sizes}),
    soft_time_limit=seconds,
    time_limit=seconds,
    statement_timeout=seconds,
    monthly_budget=st.sampled_from([0.5, 400, 5000]),
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
        "tenants": st.dictionaries(st.sampled_from(["tenant-a", "tenant-b", "acme", "default"]), tenant, max_size=3),
        "urgent": st.none() | some(queue=names),
        "rates": some(worker_hour=st.sampled_from([0, 0.5, 2]), redis_hour=st.sampled_from([0, 0.1])),
        "statement_timeout": seconds,
        "databases": st.dictionaries(
            st.sampled_from(["sales", "events"]), some(statement_timeout=seconds, allow_dml=st.booleans()), max_size=2
        ),
        "maintenance": some(query_retention_days=st.none() | st.integers(1, 90), log_retention_days=st.none()),
    },
)


likely = st.builds(
    lambda user, more: {"users": [user]} | more,
    st.sampled_from(["alice", "ann", "bob", "eve"]),
    some(
        guests=st.lists(guest, max_size=1),
        pool=st.sampled_from(["shared", "dedicated"]),
        in_flight=st.integers(1, 4),
        max_workers=st.integers(1, 12),
        quota=st.none()
        | st.fixed_dictionaries({"cpu": st.sampled_from(["1", "9"]), "memory": st.sampled_from(["1Gi", "99Gi"])}),
        soft_time_limit=st.sampled_from([535, 560, 571]),
        statement_timeout=st.sampled_from([5, 538]),
        monthly_budget=st.sampled_from([300, 5000]),
    ),
)
#: Stacks of which many are right.
tenanted = st.fixed_dictionaries(
    {
        "topology": st.just("multi-tenant"),
        "tenants": st.dictionaries(st.sampled_from(["acme", "bolt", "core"]), likely, min_size=1, max_size=2),
    },
    optional={"urgent": st.none(), "pools": st.fixed_dictionaries({"default": some(concurrency=st.integers(1, 3))})},
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
        times = {"aof": 4.63, "rdb": 2.1, "none": 0}[instance.persistence]
        assert instance.volume_bytes >= times * instance.maxmemory_bytes
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
        assert timeout > 0
    # tenants
    assert_tenants(topology)
    # 4. connections
    child = celery.connections.size + celery.connections.max_overflow + (celery.result_backend == "postgresql")
    workers = sum(pool.max_workers * pool.concurrency * child for pool in topology.pools)
    web = topology.web.max_replicas * topology.web.processes * topology.web.connections.most
    assert workers + web <= postgres.max_connections - postgres.reserved_connections
    # 7. beat
    jobs = {job.task for job in topology.beat.jobs}
    assert ("celery.backend_cleanup" in jobs) == (celery.result_backend == "postgresql")


def assert_tenants(topology: Topology) -> None:
    celery = topology.celery
    owners: dict[tuple[str, str], str] = {}
    for tenant in topology.tenants:
        recognisers = [
            *(("user", user) for user in tenant.users),
            *(("role", role) for role in tenant.roles),
            *(("database", database) for database in tenant.databases),
            *((f"claim {guest.claim}", guest.value) for guest in tenant.guests),
        ]
        assert recognisers
        assert len(set(recognisers)) == len(recognisers)
        for kind, value in recognisers:
            assert value
            assert (kind, value) not in owners
            for other_kind, other in owners:
                if kind == other_kind and kind.startswith("claim"):
                    for sample in (value.replace("*", "-any"), other.replace("*", "-any"), "acme-1", "bob"):
                        assert not (claims(value, sample) and claims(other, sample))
        owners |= dict.fromkeys(recognisers, tenant.id)
        declared = {database.name for database in topology.databases}
        assert not declared or declared >= set(tenant.databases)
        assert (
            tenant.statement_timeout_seconds
            < tenant.soft_time_limit_seconds
            < tenant.time_limit_seconds
            < celery.visibility_timeout_seconds
        )
        urgent = {topology.urgent.queue} if topology.urgent else set[str]()
        for pool in topology.pools:
            if {tenant.queue, celery.default_queue, *urgent} & set(pool.queues):
                assert pool.grace_period_seconds >= tenant.soft_time_limit_seconds + 30
        pool = topology.pool(tenant.pool)
        assert tenant.queue in pool.queues
        if pool.tenant is None:
            assert pool.concurrency >= 2
            assert pool.prefetch_multiplier == 1
            assert celery.acks_late
            (share,) = [share for share in pool.shares if share.queue == tenant.queue]
            assert 1 <= share.in_flight < pool.concurrency
        else:
            assert (pool.tenant, pool.queues, pool.shares) == (tenant.id, (tenant.queue,), ())
        if pool.quota:
            pods = pool.max_workers + -(-pool.max_workers // 4)
            assert pool.quota.cpu_millis >= pods * pool.resources.cpu_request_millis
            assert pool.quota.memory_bytes >= pods * pool.resources.memory_request_bytes
        if tenant.monthly_budget is not None:
            assert topology.rates.worker_hour > 0
    if topology.tenants:
        assert len(topology.redis) == 2
    if topology.urgent:
        assert topology.urgent.queue in set(celery.queues) - {celery.default_queue, *(each.id for each in topology.tenants)}
    if topology.name == "multi-tenant":
        assert {"default", "priority"} <= set(celery.queues)


def claims(pattern: str, value: str) -> bool:
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


ROUTE = {
    "kind": "ingress",
    "host": "superset.example.com",
    "parent": "nginx",
    "tls_secret": "superset-tls",
    "from_namespaces": ["ingress-nginx"],
}
accepted = refused = tenants_accepted = 0


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stacks | tenanted)
def test_an_accepted_stack_breaks_no_invariant(config: dict[str, Any]) -> None:
    global accepted, refused, tenants_accepted  # noqa: PLW0603
    try:
        topology = plan("any", config)
    except StackError as error:
        refused += 1
        assert error.problems
        return
    accepted += 1
    tenants_accepted += len(topology.tenants)
    assert_invariants(topology)


def test_the_property_was_tried_on_accepted_and_on_refused_stacks() -> None:
    assert accepted > 50
    assert refused > 50
    assert tenants_accepted > 10


@pytest.mark.parametrize("stack", stack_file.names())
def test_shipped_stacks_hold_the_invariants(stack: str) -> None:
    assert_invariants(plan(stack, stack_file.read(stack)))


@pytest.mark.parametrize(
    ("topology", "override", "key"),
    [
        ("minimal", {"celery": {"queues": ["default", "lonely"]}}, "celery.queues"),
        ("minimal", {"pools": {"default": {"queues": ["default", "undeclared"]}}}, "pools.default.queues"),
        ("minimal", {"celery": {"default_queue": "celery"}}, "celery.default_queue"),
        ("minimal", {"celery": {"queues": ["default", "default"]}}, "celery.queues"),
        ("minimal", {"tenants": {"default": {"users": ["ann"]}}}, "tenants.default"),
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
        # 4.4 × 384Mi and the 5 % that a file system keeps are 1778.5Mi; 2 × are 808.4Mi.
        ("minimal", {"redis": {"broker": {"volume_size": "1778Mi"}}}, "redis.broker.volume_size"),
        ("minimal", {"redis": {"broker": {"persistence": "rdb", "volume_size": "808Mi"}}}, "redis.broker.volume_size"),
        ("enterprise", {"redis": {"cache": {"persistence": "aof"}}}, "redis.cache.volume_size"),
        ("minimal", {"namespace": "kube-system"}, "namespace"),
        ("minimal", {"namespace": "default"}, "namespace"),
        ("minimal", {"namespace": "keda"}, "namespace"),
        ("minimal", {"postgres": {"user": "super-set"}}, "postgres.user"),
        ("minimal", {"postgres": {"kind": "cloudnativepg", "database": "Superset"}}, "postgres.database"),
        *(
            ("minimal", {"postgres": {"kind": "existing", "host": host, "max_connections": 200}}, "postgres.host")
            for host in ("db:5432", "postgresql://db", "fd00::1", "[fd00::1]", "", "a..b", "db-", "a." * 127 + "b")
        ),
        ("enterprise", {"workers": {"resources": {"cpu_request": "0"}}}, "workers.resources.cpu_request"),
        ("minimal", {"web": {"resources": {"memory_request": "4Gi"}}}, "web.resources.memory_request"),
        ("minimal", {"beat_resources": {"cpu_request": "2"}}, "beat_resources.cpu_request"),
        ("minimal", {"web": {"min_replicas": 2}}, "web.min_replicas"),
        ("minimal", {"workers": {"min_workers": 3}}, "workers.min_workers"),
        ("multi-tenant", {"tenants": {"a": {"users": ["ann"], "min_workers": 30}}}, "tenants.a.min_workers"),
        ("minimal", {"workers": {"max_memory_per_child": "200000Ki"}}, "workers.max_memory_per_child"),
        ("enterprise", {"pools": {"default": {"max_memory_per_child": "900M"}}}, "pools.default.max_memory_per_child"),
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
        ("minimal", {"redis": {"broker": {"existing": {"host": "h"}}, "tls": {"kind": "generated"}}}, "redis.tls"),
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
        (
            "minimal",
            {"network": {"egress": {"mail": {"cidrs": ["10.0.0.1/8"], "ports": [25]}}}},
            "network.egress.mail.cidrs.0",
        ),
        ("minimal", {"databases": {"x": {"sample": True}}}, "databases.x.sample"),
        ("minimal", {"images": {"postgres": "postgres:18.1-alpine3.22"}}, "images.postgres"),
        ("minimal", {"images": {"postgres_user": 0}}, "images.postgres_user"),
        ("minimal", {"network": {"dns": []}}, "network.dns"),
        ("minimal", {"network": {"dns": ["coredns"]}}, "network.dns.0"),
        ("minimal", {"storage_class": "Fast SSD"}, "storage_class"),
        (
            "multi-tenant",
            {"tenants": {f"tenant-{number}": {"users": [f"user-{number}"], "concurrency": 2} for number in range(1100)}},
            "tenants",
        ),
        ("minimal", {"platform": "local", "local": {"web_port": 16379}}, "local.redis_port"),
        ("minimal", {"platform": "local", "postgres": {"kind": "existing", "host": "h"}}, "postgres.kind"),
    ],
)
def test_each_rule_refuses_what_breaks_it(topology: str, override: dict[str, Any], key: str) -> None:
    with pytest.raises(StackError) as caught:
        plan("broken", {"topology": topology} | override)
    assert key in {problem.key for problem in caught.value.problems}, str(caught.value)


USERS = {"users": ["ann"]}
SHARED = USERS | {"pool": "shared"}
GUEST = {"claim": "user.username", "value": "acme-7"}
QUOTA = {"cpu": "1250m", "memory": "2560Mi"}


@pytest.mark.parametrize(
    ("tenants", "more", "key", "says"),
    [
        ({"a": {}}, {}, "tenants.a", "has no users, roles, groups, databases or guests"),
        ({"a": {"users": [], "monthly_budget": 9000}}, {}, "tenants.a", "has no users"),
        ({"a": {"users": [""]}}, {}, "tenants.a.users", "must not be empty"),
        ({"a": {"users": ["ann", "ann"]}}, {}, "tenants.a.users", "is listed twice"),
        ({"a": USERS, "b": USERS}, {}, "tenants.b.users", "is tenant 'a''s already"),
        ({"a": {"roles": ["Sales"]}, "b": {"roles": ["Sales"]}}, {}, "tenants.b.roles", "is tenant 'a''s already"),
        ({"a": {"databases": ["x"]}, "b": {"databases": ["x"]}}, {}, "tenants.b.databases", "is tenant 'a''s already"),
        (
            {"a": {"guests": [GUEST | {"value": "acme-*"}]}, "b": {"guests": [GUEST]}},
            {},
            "tenants.b.guests",
            "is tenant 'a''s already (by user.username=acme-*)",
        ),
        ({"a": {"databases": ["salse"]}}, {"databases": {"sales": {}}}, "tenants.a.databases", "Did you mean 'sales'?"),
        ({"a": SHARED | {"concurrency": 3}}, {}, "tenants.a.concurrency", "means nothing for pool: shared"),
        ({"a": SHARED | {"min_workers": 3}}, {}, "tenants.a.min_workers", "means nothing for pool: shared"),
        ({"a": SHARED | {"max_workers": 3}}, {}, "tenants.a.max_workers", "means nothing for pool: shared"),
        ({"a": SHARED | {"quota": QUOTA}}, {}, "tenants.a.quota", "means nothing for pool: shared"),
        ({"a": USERS | {"in_flight": 2}}, {}, "tenants.a.in_flight", "means nothing for pool: dedicated"),
        ({"a": SHARED | {"in_flight": 4}}, {}, "tenants.a.in_flight", "must be below the concurrency of pool 'default' (4)"),
        ({"unacked": USERS}, {}, "tenants.unacked", "is a key of the broker's own"),
        ({"a": USERS | {"statement_timeout": 540}}, {}, "tenants.a.statement_timeout", "must be below"),
        ({"a": USERS | {"soft_time_limit": 100}}, {}, "tenants.a.soft_time_limit", "must be above"),
        ({"a": USERS | {"soft_time_limit": 600}}, {}, "tenants.a.soft_time_limit", "must be below"),
        ({"a": USERS | {"time_limit": 3600}}, {}, "tenants.a.time_limit", "would be delivered again"),
        (
            {"a": USERS | {"soft_time_limit": 580}},
            {},
            "tenants.a.soft_time_limit",
            "must be at most workers.grace_period - 30 = 570",
        ),
        (
            {"a": USERS | {"soft_time_limit": 580}},
            {"workers": {"grace_period": 700}, "pools": {"priority": {"grace_period": 600}}},
            "tenants.a.soft_time_limit",
            "a stopping worker of pool 'priority'",
        ),
        # Two workers and the one that an update adds need 1500m and 3Gi.
        ({"a": USERS | {"max_workers": 2, "quota": QUOTA}}, {}, "tenants.a.quota.cpu", "is below 1500m"),
        ({"a": USERS | {"max_workers": 2, "quota": QUOTA}}, {}, "tenants.a.quota.memory", "is below 3Gi"),
        ({"a": SHARED}, {"pools": {"default": {"concurrency": 1}}}, "pools.default.concurrency", "must be at least 2"),
        ({"a": SHARED}, {"workers": {"prefetch_multiplier": 4}}, "workers.prefetch_multiplier", "must be 1"),
        ({"a": SHARED}, {"celery": {"acks_late": False}}, "celery.acks_late", "must be true where tenants share"),
        ({"a": USERS}, {"redis": {"cache": None}}, "redis.cache", "must be a server of its own where there are tenants"),
        ({"a": USERS | {"monthly_budget": 100}}, {}, "tenants.a.monthly_budget", "cost at rest: 365 USD a month"),
        ({"a": USERS | {"monthly_budget": float("inf")}}, {}, "tenants.a.monthly_budget", "finite"),
        (
            {"a": SHARED | {"monthly_budget": 9}},
            {"rates": {"worker_hour": 0}},
            "rates.worker_hour",
            "makes every query free",
        ),
        ({}, {"urgent": {"queue": "prioritty"}}, "urgent.queue", "Did you mean 'priority'?"),
        ({"a": USERS}, {"urgent": {"queue": "a"}}, "urgent.queue", "is not declared"),
        ({}, {"urgent": {"queue": "default"}}, "urgent.queue", "where urgent queries pass nobody"),
        ({}, {"celery": {"queues": ["default"]}}, "celery.queues", "lacks 'priority'"),
    ],
    ids=str,
)
def test_each_rule_about_tenants_says_what_is_wrong_where(
    tenants: dict[str, Any], more: dict[str, Any], key: str, says: str
) -> None:
    with pytest.raises(StackError) as caught:
        plan("broken", {"topology": "multi-tenant", "tenants": tenants} | more)
    assert [str(problem) for problem in caught.value.problems if problem.key == key and says in str(problem)], caught.value


def test_mistakes_of_several_tenants_are_told_at_once_and_none_is_told_twice() -> None:
    tenants = {"a": {"in_flight": 2}, "b": SHARED | {"quota": QUOTA}, "c": USERS, "d": USERS | {"time_limit": 100}}
    with pytest.raises(StackError) as caught:
        plan("broken", {"topology": "multi-tenant", "tenants": tenants})
    assert [problem.key for problem in caught.value.problems] == [
        "tenants.a",
        "tenants.a.in_flight",
        "tenants.b.quota",
        "tenants.c.users",
        "tenants.d.time_limit",
        "tenants.d.users",
    ]


def test_a_tenants_limits_and_quota_are_taken_where_they_fit() -> None:
    tenants = {
        "a": USERS
        | {"soft_time_limit": 60, "time_limit": 90, "statement_timeout": 50, "max_workers": 2, "monthly_budget": 400}
        | {"quota": {"cpu": "1500m", "memory": "3Gi"}},
        "b": {"guests": [GUEST | {"value": "b-*"}], "pool": "shared", "in_flight": 3},
        "c": {"guests": [GUEST | {"value": "c-*"}], "roles": ["ann"]},
    }
    topology = plan("fine", {"topology": "multi-tenant", "tenants": tenants})
    assert_invariants(topology)
    assert (
        topology.postgres.max_connections
        == plan("few", {"topology": "multi-tenant", "tenants": {"a": tenants["a"]}}).postgres.max_connections
    )


def test_a_volume_of_what_is_ever_on_it_is_enough() -> None:
    for persistence, size in (("aof", "1779Mi"), ("rdb", "809Mi")):
        plan("fits", {"topology": "minimal", "redis": {"broker": {"persistence": persistence, "volume_size": size}}})


@pytest.mark.parametrize("stack", ["a" * 64, "-a", "a-", "_a", "a_", "a b", ""])
def test_a_stack_whose_name_is_no_label_is_refused_on_a_cluster(stack: str) -> None:
    with pytest.raises(StackError) as caught:
        plan(stack, {"topology": "minimal"})
    assert [problem.key for problem in caught.value.problems] == ["stack"]
    assert plan(stack, {"topology": "minimal", "platform": "local"}).stack == stack


def test_what_exists_has_the_names_that_its_server_allows() -> None:
    """A Secret's name may have dots and begin with a digit, as a namespace's may, and PostgreSQL's roles have other letters."""
    topology = plan(
        "9.a_B",
        {
            "topology": "minimal",
            "redis": {
                "broker": {
                    "existing": {"host": "10.0.0.6", "password_secret": "1." + "a" * 63, "tls": True, "ca_secret": "c.d"}
                }
            },
            "postgres": {
                "kind": "existing",
                "host": "10.0.0.7",
                "max_connections": 200,
                "user": "Super-Set",
                "database": "d.b",
            },
            "network": {"operator_namespaces": {"keda": "9keda-" + "a" * 50}},
        },
    )
    assert (topology.postgres.user, topology.postgres.host) == ("Super-Set", "10.0.0.7")


def test_an_existing_server_needs_its_host_and_its_limit() -> None:
    existing = {"kind": "existing", "host": "db.internal", "cidrs": ["10.8.0.0/24"], "max_connections": 500}
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


def test_a_collector_of_traces_is_a_peer_by_its_namespace_or_its_networks() -> None:
    def peers(**tracing: object) -> list[Peer]:
        planned = plan("s", {"topology": "minimal", "platform": "kubernetes", "tracing": tracing})
        return [peer for peer in planned.egress if peer.key == "tracing"]

    service = Peer(key="tracing", pods=("superset",), ports=(4318,), namespace="observability")
    assert peers(endpoint="http://collector.observability.svc:4318") == [service]
    assert peers() == []
    with pytest.raises(StackError, match=r"tracing\.cidrs = missing: must be given"):
        peers(endpoint="https://otlp.example.com/team")
    (given,) = peers(endpoint="https://otlp.example.com/team", cidrs=["10.1.0.0/16"])
    assert (given.ports, given.cidrs) == ((443,), ("10.1.0.0/16",))
    with pytest.raises(StackError, match=r"tracing\.endpoint = .* must be the http or https URL of a collector"):
        peers(endpoint="collector:4318")
