"""The shape of a topology: everything decided about one environment, as typed, frozen data.

`topology.plan` builds it, `components` and `local` act on it, and every container and process gets it as JSON (the file
named by `SUPERSET_ASYNC_TOPOLOGY`). It lives here because the image carries `runtime` and nothing else of this project.

Units are in the names or in the docstring; sizes are bytes, times are seconds. No field holds a secret: a field that ends in
`_env` names the environment variable that does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Platform = Literal["local", "kubernetes"]
TopologyName = Literal["minimal", "enterprise", "high-throughput", "multi-tenant"]
EvictionPolicy = Literal[
    "noeviction",
    "volatile-lru",
    "volatile-lfu",
    "volatile-ttl",
    "volatile-random",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
]
Persistence = Literal["aof", "rdb", "none"]
ResultBackend = Literal["redis", "postgresql"]
Compression = Literal["none", "gzip", "zstd"]
ResultCompression = Literal["none", "zlib", "zstd"]
PostgresKind = Literal["statefulset", "cloudnativepg", "existing"]
Autoscaler = Literal["hpa", "keda"]
RouteKind = Literal["ingress", "gateway"]
TenantPool = Literal["shared", "dedicated"]
Priority = Literal["low", "normal", "high"]

#: What each Redis database is for. The first four carry state that no one can compute again; the rest are caches.
Purpose = Literal[
    "broker",
    "celery_results",
    "async_events",
    "coordination",
    "metadata_cache",
    "data_cache",
    "filter_state",
    "explore_form_data",
    "query_results",
    "rate_limits",
]
BROKER_PURPOSES: frozenset[Purpose] = frozenset({"broker", "celery_results", "async_events", "coordination"})
#: As whom Superset's processes use Redis: one user for what carries state, one for the caches.
RedisRole = Literal["broker", "cache"]

#: Port of every Sentinel; their host is the instance's name with this suffix, and they have the instance's users.
SENTINEL_PORT = 26379
SENTINEL_SUFFIX = "-sentinel"


class Frozen(BaseModel):
    """Base of every part: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Resources(Frozen):
    """What a container asks for and may use: CPU in millicores, memory in bytes."""

    cpu_request_millis: int
    cpu_limit_millis: int
    memory_request_bytes: int
    memory_limit_bytes: int


class RedisUser(Frozen):
    """A user of a Redis server: it touches keys and channels of these patterns (of Redis's ACL), and administers nothing.

    `subscriptions` are the patterns that it may subscribe to with PSUBSCRIBE, which must be granted letter by letter.
    """

    role: RedisRole
    username: str
    password_env: str
    keys: tuple[str, ...]
    channels: tuple[str, ...]
    subscriptions: tuple[str, ...]


class RedisTls(Frozen):
    """How clients of a Redis server make sure, over TLS, that it is the one that they mean.

    `ca_file` holds the certificates of the authorities that may have signed the server's own; None: those of the system.
    It is the key `ca.crt` of the Kubernetes Secret `secret_name`, which for a server that this project runs has its certificate
    and key too (`tls.crt`, `tls.key`).
    """

    secret_name: str | None
    ca_file: str | None


class ExistingRedis(Frozen):
    """What differs where a server is run by someone else: it is used and checked, and never changed.

    `cidrs` are the networks in which pods may reach it (None: anywhere); `password_secret_name` is a Kubernetes Secret with the
    key `password` (None: the stack's own configuration has the password).
    """

    cidrs: tuple[str, ...] | None
    password_secret_name: str | None


class RedisInstance(Frozen):
    """One Redis (or Valkey) server, with its replicas, the databases that live on it, and its users.

    Of an `existing` one, what it runs with (memory, policy, persistence) is not decided here: `runtime.start.init` looks at it.
    """

    name: str
    host: str
    port: int
    tls: RedisTls | None
    existing: ExistingRedis | None
    users: tuple[RedisUser, ...]
    carries_broker: bool
    carries_caches: bool
    maxmemory_bytes: int
    maxmemory_policy: EvictionPolicy
    persistence: Persistence
    replicas: int
    sentinel: bool
    volume_bytes: int
    resources: Resources


class RedisDatabase(Frozen):
    """One numbered database, used as the instance's user of `role`.

    `prefix` starts every key in it; `default_ttl_seconds` is None only where it is no cache.
    """

    purpose: Purpose
    instance: str
    role: RedisRole
    number: int
    prefix: str
    default_ttl_seconds: int | None


class Backup(Frozen):
    """When the metadata database is dumped (`cron`, UTC), how many dumps are kept, and on what volume."""

    cron: str
    keep: int
    volume_bytes: int


class Postgres(Frozen):
    """The metadata database's server, which also holds Celery's results where `celery.result_backend` says so."""

    kind: PostgresKind
    host: str
    port: int
    database: str
    user: str
    password_env: str
    max_connections: int
    reserved_connections: int
    instances: int
    volume_bytes: int
    backup: Backup | None
    resources: Resources


class ConnectionPool(Frozen):
    """SQLAlchemy pool of one process on the metadata database: at most `size + max_overflow` connections."""

    size: int
    max_overflow: int
    recycle_seconds: int

    @property
    def most(self) -> int:
        """The most connections that one process opens through this pool."""
        return self.size + self.max_overflow


class Route(Frozen):
    """How users reach the web tier from outside the cluster: an Ingress, or an HTTPRoute of a Gateway.

    `parent` is the ingress class, or the Gateway as `namespace/name`; `tls_secret_name` holds the certificate (an Ingress's own;
    a Gateway has its own listener's); `from_namespaces` are those whose pods may connect to the web tier.
    """

    kind: RouteKind
    host: str
    parent: str
    tls_secret_name: str | None
    from_namespaces: tuple[str, ...]


class Web(Frozen):
    """The web tier: `min_replicas..max_replicas` pods of `processes` gunicorn workers with `threads` threads each."""

    host: str
    port: int
    min_replicas: int
    max_replicas: int
    processes: int
    threads: int
    request_timeout_seconds: int
    secure_cookies: bool
    connections: ConnectionPool
    cpu_target_percent: int | None
    route: Route | None
    resources: Resources


class Scaling(Frozen):
    """What a worker pool is scaled on: CPU utilization of its request, and messages waiting or running per worker.

    `scale_in_window_seconds`: how long the load must be lower before a worker goes, one at a time.
    """

    kind: Autoscaler
    cpu_target_percent: int
    queued_per_worker: int
    scale_in_window_seconds: int


class Share(Frozen):
    """What one queue may take of each worker that listens to several: at most `in_flight` of its children at once.

    Among queues that have messages and room, a higher `priority` is asked first, and equal ones take turns.
    """

    queue: str
    in_flight: int
    priority: Priority


class Quota(Frozen):
    """The most that the pods of one pool may request together: CPU in millicores, memory in bytes."""

    cpu_millis: int
    memory_bytes: int


class Pool(Frozen):
    """One Celery worker pool: `min_workers..max_workers` workers of `concurrency` child processes on `queues`.

    `tenant` is whose it is alone, None for a pool that several share; then `shares` has what each queue may take, and is
    empty for a pool with one queue.
    """

    name: str
    tenant: str | None
    priority: Priority
    quota: Quota | None
    shares: tuple[Share, ...]
    queues: tuple[str, ...]
    concurrency: int
    min_workers: int
    max_workers: int
    prefetch_multiplier: int
    max_tasks_per_child: int
    max_memory_per_child_bytes: int | None
    grace_period_seconds: int
    scaling: Scaling | None
    resources: Resources


class Exporter(Frozen):
    """The exporter of queue metrics, on `host` and `port`: who may scrape it, and what it may use.

    `service_monitor`: whether the Prometheus operator is told of it; else annotations of its Service are.
    """

    host: str
    port: int
    from_namespaces: tuple[str, ...]
    service_monitor: bool
    resources: Resources


class Objectives(Frozen):
    """What the stack promises over 30 days, for each queue and tenant: `waits_met` percent of queries begin within `wait_seconds`
    (a bound of the histogram of waits), and `ends_well` percent end neither lost nor at a limit.
    """

    wait_seconds: float
    waits_met: float
    ends_well: float


class Monitoring(Frozen):
    """The rules on the stack's metrics.

    `rules`: whether the Prometheus operator gets them. `runbooks`: where docs/runbooks is read. `prometheus_port` and
    `alertmanager_port` are for those that this machine runs beside the stack.
    """

    rules: bool
    runbooks: str
    objectives: Objectives
    prometheus_port: int
    alertmanager_port: int


class Job(Frozen):
    """One entry of Celery beat's schedule: `cron` is minute, hour, day of month, month, day of week (UTC)."""

    name: str
    task: str
    cron: str
    kwargs: dict[str, int]


class Beat(Frozen):
    """Celery beat: exactly one process. It sends the jobs, and the reaper of lost queries lives in it."""

    jobs: tuple[Job, ...]
    resources: Resources


class Celery(Frozen):
    """What every Celery process, web included, must agree on."""

    result_backend: ResultBackend
    default_queue: str
    queues: tuple[str, ...]
    acks_late: bool
    soft_time_limit_seconds: int
    time_limit_seconds: int
    visibility_timeout_seconds: int
    result_expires_seconds: int
    compression: Compression
    connections: ConnectionPool


class GuestClaim(Frozen):
    """A claim of an embedded guest's token: the value at the dotted path `claim`, such as user.username."""

    claim: str
    value: str


class Tenant(Frozen):
    """Whose queries go to `queue`, which the workers of `pool` listen to.

    A query is this tenant's by the first of these that any tenant has: a claim of its guest token, its user, one of its
    user's roles, the analytic database that it reads. Limits are those of the tenant's tasks.
    """

    id: str
    queue: str
    pool: str
    users: tuple[str, ...]
    roles: tuple[str, ...]
    databases: tuple[str, ...]
    guests: tuple[GuestClaim, ...]
    soft_time_limit_seconds: int
    time_limit_seconds: int
    statement_timeout_seconds: int
    result_ttl_seconds: int | None
    monthly_budget: float | None


class Urgent(Frozen):
    """Whose queries go to `queue` whatever their tenant: those of users with one of `roles`, and those that ask for it (by
    a header of the request) from users with one of `marker_roles`."""

    queue: str
    roles: tuple[str, ...]
    marker_roles: tuple[str, ...]


class Rates(Frozen):
    """What an hour of one worker at rest or at work, and of all Redis servers, costs in `currency`."""

    worker_hour: float
    redis_hour: float
    currency: str


class Spill(Frozen):
    """Where results larger than `above_bytes` go instead of Redis: files in `folder`, which web and workers share.

    On Kubernetes it is the volume of the existing claim `claim`.
    """

    above_bytes: int
    folder: str
    claim: str | None


class Caching(Frozen):
    """How results are kept: chart data and SQL Lab's rows.

    `jitter_percent`: each lifetime is spread by as much either way. `early_refresh`: how eagerly one caller computes a value
    anew before it expires (beta of probabilistic early expiration; 0: never). `stale_seconds`: how long past its lifetime a
    value may be served while one caller computes it anew (0: never). `single_flight`: identical cold requests wait for one.
    `compress_above_bytes`: smaller values are stored as they are. `max_result_bytes`: larger ones are refused, as stored.
    """

    chart_data_ttl_seconds: int
    query_results_ttl_seconds: int
    jitter_percent: int
    early_refresh: float
    stale_seconds: int
    single_flight: bool
    compression: ResultCompression
    compress_above_bytes: int
    max_result_bytes: int
    spill: Spill | None


class Resilience(Frozen):
    """How queries end under faults, and how many may wait.

    `max_queued`: messages in one queue beyond which a submission is refused. `max_in_flight_per_user`: one user's queries,
    waiting or running, beyond which another is refused. `max_retries`: of a read after a connection error, with back-off of
    at most `retry_backoff_seconds`. `final_state_seconds`: within how long after its cause a lost query is final.
    """

    max_queued: int
    max_in_flight_per_user: int
    max_retries: int
    retry_backoff_seconds: int
    final_state_seconds: int


class AnalyticDatabase(Frozen):
    """A database that users query: `uri` has no password, or else the environment variable `uri_env` holds the whole URI."""

    name: str
    uri: str | None
    uri_env: str | None
    statement_timeout_seconds: int
    allow_dml: bool
    sample: bool


class Images(Frozen):
    """Container images, each with a tag or digest."""

    superset: str
    redis: str
    postgres: str
    pull_policy: Literal["IfNotPresent", "Always", "Never"]


class OperatorNamespaces(Frozen):
    """Namespaces of the cluster's operators that connect to servers of the stack."""

    keda: str
    cloudnativepg: str


class Topology(Frozen):
    """Everything decided about one environment."""

    stack: str
    name: TopologyName
    platform: Platform
    environment: str
    namespace: str
    labels: dict[str, str]
    images: Images
    redis: tuple[RedisInstance, ...]
    redis_databases: tuple[RedisDatabase, ...]
    postgres: Postgres
    web: Web
    celery: Celery
    pools: tuple[Pool, ...]
    beat: Beat
    exporter: Exporter
    monitoring: Monitoring
    caching: Caching
    resilience: Resilience
    tenants: tuple[Tenant, ...]
    urgent: Urgent | None
    rates: Rates
    statement_timeout_seconds: int
    row_limit: int
    database_cidrs: tuple[str, ...]
    operator_namespaces: OperatorNamespaces
    databases: tuple[AnalyticDatabase, ...]
    admin_username: str

    def database(self, purpose: Purpose) -> RedisDatabase:
        """The Redis database for `purpose`; KeyError where this topology has none (Celery's results on PostgreSQL)."""
        for candidate in self.redis_databases:
            if candidate.purpose == purpose:
                return candidate
        raise KeyError(purpose)

    def instance(self, name: str) -> RedisInstance:
        """The Redis instance called `name`; KeyError for an unknown one."""
        for candidate in self.redis:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def redis_users(self) -> dict[RedisRole, RedisUser]:
        """Every user of every Redis instance; a role is on one instance only."""
        return {user.role: user for instance in self.redis for user in instance.users}

    def tenant(self, tenant_id: str) -> Tenant:
        """The tenant called `tenant_id`; KeyError for an unknown one."""
        for candidate in self.tenants:
            if candidate.id == tenant_id:
                return candidate
        raise KeyError(tenant_id)

    def pool(self, name: str) -> Pool:
        """The worker pool called `name`; KeyError for an unknown one."""
        for candidate in self.pools:
            if candidate.name == name:
                return candidate
        raise KeyError(name)
