"""The shape of a topology: everything decided about one environment, as typed, frozen data.

`topology.plan` builds it, `components` and `local` act on it, and every container and process gets it as JSON (the file named by
`SUPERSET_ASYNC_TOPOLOGY`). What a stack file says and nothing decides about is a class of `topology.settings`, used here as it is
or as a base.

Units are in the names or in the docstring; sizes are bytes, times are seconds. No field holds a secret: a field that ends in
`_env` names the environment variable that does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from topology.aws.model import Aws
from topology.presets import TopologyName
from topology.settings.caching import Caching
from topology.settings.databases import DatabaseOptions
from topology.settings.images import Images
from topology.settings.network import MetricsSettings, OperatorNamespaces, Resolver
from topology.settings.postgres import PostgresServer
from topology.settings.redis import RedisServer
from topology.settings.resilience import Resilience, Urgent
from topology.settings.resources import Quota, Resources
from topology.settings.stack import PlatformName
from topology.settings.superset import SupersetSettings
from topology.settings.tenants import Priority, Rates, TenantTerms
from topology.settings.tls import ServerCertificate
from topology.settings.tracing import TracingSettings
from topology.settings.web import WebServer
from topology.settings.workers import Celery, WorkerSettings

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
#: As whom Redis is used: by Superset's processes as one user for what carries state, and one for the caches; by the exporter and
#: KEDA, who only read the broker; and by people with Celery's own tools, who ask workers.
RedisRole = Literal["broker", "cache", "reader", "monitor"]
#: Those of Superset's processes.
PROCESS_ROLES: tuple[RedisRole, ...] = ("broker", "cache")

#: Port of every Sentinel; their host is the instance's name with this suffix, and they have the instance's users.
SENTINEL_PORT = 26379
SENTINEL_SUFFIX = "-sentinel"


#: Pods of a stack that reach the same peers: superset is every pod that runs its code.
PodGroup = Literal["superset", "web", "exporter"]


class Frozen(BaseModel):
    """Base of every part: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisUser(Frozen):
    """A user of a Redis server: it touches keys and channels of these patterns (of Redis's ACL), and administers nothing.

    `reads` are patterns of keys that it may only read. `subscriptions` are the patterns that it may subscribe to with PSUBSCRIBE,
    which must be granted letter by letter.
    """

    role: RedisRole
    username: str
    password_env: str
    keys: tuple[str, ...]
    reads: tuple[str, ...] = ()
    channels: tuple[str, ...]
    subscriptions: tuple[str, ...]


class ServerTls(Frozen):
    """How clients of a Redis or PostgreSQL server make sure, over TLS, that it is the one that they mean.

    `ca_file` holds the certificates of the authorities that may have signed the server's own; None: those of the system.
    It is the key `ca.crt` of the Kubernetes Secret `secret_name` (None: the image has the file). `certificate` says where the
    certificate comes from that a server of this project's shows; None: the server is somebody else's.
    """

    secret_name: str | None
    ca_file: str | None
    certificate: ServerCertificate | None = None


class Peer(Frozen):
    """Something outside of the stack that its pods connect to: `ports` (TCP) in the networks `cidrs`, or in `namespace`.

    `key` is what asks for it: a key of the stack file, or what a platform needs. Without networks and namespace it is closed.
    """

    key: str
    pods: tuple[PodGroup, ...]
    ports: tuple[int, ...]
    cidrs: tuple[str, ...] = ()
    namespace: str | None = None


class ExistingRedis(Frozen):
    """What differs where a server is run by someone else: it is used and checked, and never changed.

    `password_secret_name` is a Kubernetes Secret with the key `password` (None: the stack's own configuration has the password).
    """

    password_secret_name: str | None


class RedisInstance(RedisServer):
    """One Redis (or Valkey) server, with its replicas, the databases that live on it, and its users.

    Of an `existing` one, what it runs with (memory, policy, persistence) is not decided here: `runtime.start.init` looks at it.
    """

    name: str
    host: str
    port: int
    tls: ServerTls | None
    existing: ExistingRedis | None
    users: tuple[RedisUser, ...]
    carries_broker: bool
    carries_caches: bool


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


class Postgres(PostgresServer):
    """The metadata database's server, which also holds Celery's results where `celery.result_backend` says so.

    With `tls` clients speak nothing else to it, and verify its certificate and name. None: as the server offers it.

    `password_secret_arn` names the secret of AWS Secrets Manager that has the role's password, which RDS changes by itself.
    None: the password is in the variable `password_env`.
    """

    host: str
    port: int
    password_env: str
    password_secret_arn: str | None = None
    max_connections: int
    tls: ServerTls | None


class Web(WebServer):
    """The web tier: `min_replicas..max_replicas` pods of `processes` gunicorn workers with `threads` threads each.

    Clients find it at `host` and `port`; `bind` is the address that it listens on. `behind_proxy`: proxies may stand before it
    (`proxies`), and say in X-Forwarded-* what the client asked for.
    """

    host: str
    port: int
    bind: str
    behind_proxy: bool
    cpu_target_percent: int | None


class Share(Frozen):
    """What one queue may take of each worker that listens to several: at most `in_flight` of its children at once.

    Among queues that have messages and room, a higher `priority` is asked first, and equal ones take turns.
    """

    queue: str
    in_flight: int
    priority: Priority


class Pool(WorkerSettings):
    """One Celery worker pool: `min_workers..max_workers` workers of `concurrency` child processes on `queues`.

    `tenant` is whose it is alone, None for a pool that several share; then `shares` has what each queue may take, and is
    empty for a pool with one queue. `elastic`: one worker process stands for all of the pool's, and grows and shrinks with the
    load between the children of `min_workers` and of `max_workers` by itself.
    """

    name: str
    tenant: str | None
    priority: Priority
    quota: Quota | None
    shares: tuple[Share, ...]
    queues: tuple[str, ...]
    elastic: bool

    @property
    def workers_in_one(self) -> int:
        """How many of the pool's workers one worker process stands for under load."""
        return self.max_workers if self.elastic else 1


class Exporter(MetricsSettings):
    """The exporter of queue metrics, found at `host` and `port`, listening on `bind`: who may scrape it, what it may use.

    `service_monitor`: whether the Prometheus operator is told of it; else annotations of its Service are.
    """

    host: str
    port: int
    bind: str


class Monitoring(Frozen):
    """The Prometheus and the Alertmanager that this machine runs beside the stack where it is asked to."""

    prometheus_port: int
    alertmanager_port: int


class ScheduledJob(Frozen):
    """One entry of Celery beat's schedule: `cron` is minute, hour, day of month, month, day of week (UTC)."""

    name: str
    task: str
    cron: str
    kwargs: dict[str, int]


class Beat(Frozen):
    """Celery beat: exactly one process. It sends the jobs, and the reaper of lost queries lives in it."""

    jobs: tuple[ScheduledJob, ...]
    resources: Resources


class Tenant(TenantTerms):
    """Whose queries go to `queue`, which the workers of `pool` listen to.

    A query is this tenant's by the first of these that any tenant has: a claim of its guest token, its user, one of its
    user's roles, the analytic database that it reads. Limits are those of the tenant's tasks.
    """

    id: str
    queue: str
    pool: str
    soft_time_limit_seconds: int
    time_limit_seconds: int
    statement_timeout_seconds: int


class AnalyticDatabase(DatabaseOptions):
    """A database that users query: `uri` has no password, or else the environment variable `uri_env` holds the whole URI."""

    name: str
    uri_env: str | None
    statement_timeout_seconds: int
    keep_connections: bool


class Topology(Frozen):
    """Everything decided about one environment."""

    stack: str
    name: TopologyName
    platform: PlatformName
    environment: str
    namespace: str
    existing_namespace: bool
    labels: dict[str, str]
    #: Of every volume; None: the cluster's default.
    storage_class: str | None
    images: Images
    redis: tuple[RedisInstance, ...]
    redis_databases: tuple[RedisDatabase, ...]
    postgres: Postgres
    superset: SupersetSettings
    web: Web
    celery: Celery
    pools: tuple[Pool, ...]
    beat: Beat
    exporter: Exporter
    monitoring: Monitoring
    caching: Caching
    resilience: Resilience
    tenants: tuple[Tenant, ...]
    #: Whether other sites have dashboards, or some tenant has guests, so that Superset must take their tokens.
    embedding: bool
    urgent: Urgent | None
    rates: Rates
    statement_timeout_seconds: int
    row_limit: int
    #: Where the cluster resolves names.
    resolvers: tuple[Resolver, ...]
    egress: tuple[Peer, ...]
    tracing: TracingSettings
    api_server_cidrs: tuple[str, ...]
    operator_namespaces: OperatorNamespaces
    databases: tuple[AnalyticDatabase, ...]
    admin_username: str
    #: None on every other platform.
    aws: Aws | None

    def on_aws(self) -> Aws:
        """What is decided about AWS; ValueError on another platform."""
        if self.aws is None:
            raise ValueError(f"stack {self.stack} is not on AWS, but on platform {self.platform}")
        return self.aws

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

    def process_redis_users(self) -> dict[RedisRole, RedisUser]:
        """Those as whom Superset's processes use Redis."""
        return {role: user for role, user in self.redis_users().items() if role in PROCESS_ROLES}

    def message_key_envs(self) -> dict[int, str]:
        """The variable of each key of the broker's messages, by number: the one that signs, and those before and after it."""
        number = self.celery.message_key
        return {each: f"MESSAGE_KEY_{each}" for each in range(max(1, number - 1), number + 2)}

    @property
    def longest_time_limit(self) -> int:
        """The longest hard limit of any task, in seconds."""
        return max(self.celery.time_limit_seconds, *(tenant.time_limit_seconds for tenant in self.tenants), 0)

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
