"""What a stack file may say: typed, validated, every key documented, unknown keys refused with the nearest real one.

`read` takes the `superset-async:` keys of a stack, lays them over the preset of the topology that they name, and returns
`Settings`, complete, with every problem found: nothing is decided here, and no file or service is read.
"""

from __future__ import annotations

import copy
import datetime
import ipaddress
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from topology import presets
from topology.histograms import WAIT_BUCKETS
from topology.model import (
    Autoscaler,
    Compression,
    EvictionPolicy,
    Persistence,
    Platform,
    PostgresKind,
    Priority,
    ResultBackend,
    ResultCompression,
    RouteKind,
    TenantPool,
    TopologyName,
)
from topology.problems import Problem, did_you_mean
from topology.quantities import Cpu, Memory


def _matching(pattern: str, rule: str) -> AfterValidator:
    """A validator that refuses a string that does not match `pattern`, and says `rule` ("rule|way out")."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _one_of(bounds: tuple[float, ...]) -> AfterValidator:
    """A validator that takes the numbers of `bounds` alone."""

    def check(value: float) -> float:
        if value not in bounds:
            raise ValueError(f"must be one of {', '.join(f'{bound:g}' for bound in bounds)}|Choose the nearest")
        return value

    return AfterValidator(check)


#: A name that can be part of a Kubernetes object's name, a host name and a queue's name (an RFC 1123 label).
Name = Annotated[
    str,
    _matching(
        r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
        "must be at most 40 lower-case letters, digits and '-', beginning with a letter|Choose such a name",
    ),
]
#: The name of a role or database in PostgreSQL, and of a user in Superset.
Identifier = Annotated[
    str,
    _matching(
        r"[a-z][a-z0-9_]{0,62}",
        "must be at most 63 lower-case letters, digits and '_', beginning with a letter|Choose such a name",
    ),
]
Image = Annotated[
    str,
    _matching(
        r"[a-z0-9][a-z0-9._/:-]*(:(?!latest$)[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})",
        "must say exactly which image: a tag other than latest, or a digest|Add the tag, such as valkey/valkey:8.1.4",
    ),
]
Cron = Annotated[
    str,
    _matching(
        r"([0-9*/,-]+ ){4}[0-9a-z*/,-]+",
        "must have five fields: minute hour day-of-month month day-of-week|Write it as in 17 3 * * *",
    ),
]
HostName = Annotated[
    str,
    _matching(
        r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        "must be a full host name in lower case|Write it as in superset.example.com",
    ),
]
#: A host that is no URL, and can stand in one as it is.
Host = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?",
        "must be a host name or an IPv4 address|Write it as in redis.example.com, without scheme, port and password",
    ),
]
RedisUserName = Annotated[
    str, _matching(r"[^\s/:@]+", "must be the name of an ACL user|Give its name, or default; the password is a secret")
]


def _is_network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("must be a network|Write it as in 10.20.0.0/16, without host bits") from None


Cidr = Annotated[str, AfterValidator(_is_network)]
Port = Annotated[int, Field(ge=1024, le=65535)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Percent = Annotated[int, Field(ge=1, le=100)]
#: Percent of an objective: at 100 there would be no budget to burn.
Objective = Annotated[float, Field(ge=50, lt=100)]


class Section(BaseModel):
    """Base of every section: immutable, unknown keys refused, no silent conversion of a string to a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, str_strip_whitespace=True)


class ResourceSettings(Section):
    """What a container asks for (requests) and may use (limits)."""

    cpu_request: Cpu = Field(description="CPU that the scheduler reserves, such as 500m")
    cpu_limit: Cpu = Field(description="CPU that the container may use at most")
    memory_request: Memory = Field(description="memory that the scheduler reserves, such as 1Gi")
    memory_limit: Memory = Field(description="memory at which the container is killed")


class ImageSettings(Section):
    """Container images; each needs a tag or a digest, and `latest` is refused."""

    superset: Image = Field(description="image built from runtime/Dockerfile; web, workers, beat and jobs run it")
    redis: Image = Field(description="server image: Valkey, or Redis 7.2 or later")
    postgres: Image = Field(description="PostgreSQL server image")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(description="when the node pulls an image")


class ExistingRedisSettings(Section):
    """A Redis (or Valkey) server that someone else runs, such as a managed one; its password is a secret."""

    host: Host = Field(description="host of the server")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=6379, description="port of the server")
    username: RedisUserName = Field(default="default", description="its ACL user, for all that this server is used for")
    password_secret: Name | None = Field(
        default=None,
        description="Secret with the key password; null: the password is superset-async:redis_passwords.broker or .cache",
    )
    tls: bool = Field(default=False, description="connect over TLS and verify the server's certificate and name")
    ca_secret: Name | None = Field(
        default=None, description="Secret with the authority in the key ca.crt; null: the system's authorities. Needs tls"
    )
    cidrs: tuple[Cidr, ...] | None = Field(
        default=None, strict=False, description="networks in which pods may reach it; null: anywhere, on its port"
    )


class RedisSettings(Section):
    """One Redis (or Valkey) server."""

    existing: ExistingRedisSettings | None = Field(
        description="null: this project runs the server; else only this counts, with replicas: 0 and sentinel: false"
    )
    maxmemory: Memory = Field(description="bytes of data at which `maxmemory_policy` acts; at most 75 % of the memory limit")
    maxmemory_policy: EvictionPolicy = Field(description="what happens at maxmemory; never allkeys-* under a broker")
    persistence: Persistence = Field(description="aof (fsync each second, and snapshots), rdb (snapshots) or none")
    replicas: NotNegative = Field(description="read replicas that can take over")
    sentinel: bool = Field(description="Sentinel promotes a replica when the primary is gone; needs 2 replicas or more")
    volume_size: Memory = Field(description="persistent volume; at least 2 × maxmemory")
    resources: ResourceSettings


class RedisTier(Section):
    """Where the broker and the caches live."""

    broker: RedisSettings = Field(description="the server of the broker, Celery's results and the async events")
    cache: RedisSettings | None = Field(description="a server of its own for the caches; null: they share the broker's")
    tls_secret: Name | None = Field(
        description="Secret with tls.crt, tls.key and ca.crt: servers that this project runs speak only TLS; null: none"
    )


class PoolSettings(Section):
    """SQLAlchemy pool of one process on the metadata database."""

    size: Positive = Field(description="connections kept open")
    max_overflow: NotNegative = Field(description="connections beyond `size` under load")
    recycle: Positive = Field(description="seconds after which a connection is replaced")


class BackupSettings(Section):
    """Dumps of the metadata database that this project runs."""

    cron: Cron = Field(description="when, in UTC: minute hour day-of-month month day-of-week")
    keep: Positive = Field(description="dumps kept; the oldest goes when a new one is complete")
    volume_size: Memory = Field(description="persistent volume of the dumps")


class PostgresSettings(Section):
    """The metadata database's server."""

    kind: PostgresKind = Field(
        description="statefulset (one server), cloudnativepg (a Cluster of that operator) or existing (give host)"
    )
    host: str | None = Field(description="host of an existing server; null for one that this project runs")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="port of the server")
    database: Identifier = Field(description="name of the metadata database")
    user: Identifier = Field(description="role that owns the metadata database")
    max_connections: Positive | None = Field(description="the server's limit; null: derived from what the tiers can open")
    reserved_connections: NotNegative = Field(description="connections kept free for operators, backups and monitoring")
    instances: Positive = Field(description="servers of a cloudnativepg cluster: a primary and its replicas; otherwise 1")
    backup: BackupSettings | None = Field(description="dumps to a volume; null: none. Not for an existing server")
    volume_size: Memory = Field(description="persistent volume")
    resources: ResourceSettings


class RouteSettings(Section):
    """How users reach the web tier from outside the cluster, over HTTPS."""

    kind: RouteKind = Field(description="ingress, or gateway (an HTTPRoute)")
    host: HostName = Field(description="host name in the URL")
    parent: str = Field(description="ingress class, or the Gateway as namespace/name")
    tls_secret: Name | None = Field(
        description="Secret with the certificate of an ingress; null for a gateway, which has its own"
    )
    from_namespaces: tuple[Name, ...] = Field(strict=False, description="namespaces whose pods may connect to the web tier")


class WebSettings(Section):
    """The web tier (gunicorn)."""

    min_replicas: Positive = Field(description="pods at rest")
    max_replicas: Positive = Field(description="pods under load; equal to min_replicas: no scaler")
    processes: Positive = Field(description="gunicorn worker processes in a pod")
    threads: Positive = Field(description="threads in each process, so requests it can hold at once")
    request_timeout: Positive = Field(description="seconds after which gunicorn kills a silent worker")
    secure_cookies: bool = Field(description="cookies only over HTTPS; false only where users reach it over plain HTTP")
    cpu_target: Percent = Field(description="CPU utilization, in percent of the request, that the scaler aims at")
    route: RouteSettings | None = Field(description="way in from outside the cluster; null: by port-forward only")
    connections: PoolSettings
    resources: ResourceSettings


class ScalingSettings(Section):
    """What worker pools are scaled on, and by what."""

    kind: Autoscaler = Field(description="keda (reads the broker) or hpa (reads metrics through an adapter)")
    cpu_target: Percent = Field(description="CPU utilization, in percent of the request, that the scaler aims at")
    queued_per_worker: Positive = Field(description="messages waiting or running, a worker, that the scaler aims at")
    scale_in_window: Positive = Field(description="seconds of lower load before a worker goes, one at a time")


class WorkerSettings(Section):
    """What a worker pool has unless it says otherwise itself."""

    concurrency: Positive = Field(description="child processes of a worker, so tasks it runs at once")
    min_workers: Positive = Field(description="workers at rest")
    max_workers: Positive = Field(description="workers under load")
    prefetch_multiplier: Positive = Field(description="messages a worker holds for each of its children")
    max_tasks_per_child: Positive = Field(description="tasks after which a child is replaced")
    max_memory_per_child: Memory | None = Field(description="resident memory at which a child is replaced; null: never")
    grace_period: Positive = Field(description="seconds a stopping worker has to finish what it runs")
    scaling: ScalingSettings | None = Field(description="null: no scaler, max_workers is used only by local's --autoscale")
    resources: ResourceSettings


class WorkerOverrides(Section):
    """A worker pool: its queues, and what differs from `workers`."""

    queues: tuple[Name, ...] | None = Field(
        default=None, strict=False, description="default: the queue of the pool's own name"
    )
    concurrency: Positive | None = None
    min_workers: Positive | None = None
    max_workers: Positive | None = None
    prefetch_multiplier: Positive | None = None
    max_tasks_per_child: Positive | None = None
    max_memory_per_child: Memory | None = None
    grace_period: Positive | None = None
    scaling: ScalingSettings | None = None
    resources: ResourceSettings | None = None


class CelerySettings(Section):
    """What every Celery process, web included, must agree on."""

    result_backend: ResultBackend = Field(description="where Celery keeps task states, for operators: redis or postgresql")
    default_queue: Name = Field(description="queue of every task that no tenant claims")
    queues: tuple[Name, ...] = Field(strict=False, description="queues that exist; each needs a pool that listens")
    acks_late: bool = Field(description="acknowledge after the task, so that a lost worker's task runs again")
    soft_time_limit: Positive = Field(description="seconds after which a task is told to stop")
    time_limit: Positive = Field(description="seconds after which its process is killed")
    visibility_timeout: Positive = Field(description="seconds after which the broker delivers an unacknowledged task again")
    result_expires: Positive = Field(description="seconds that Celery keeps a task's state")
    compression: Compression = Field(description="of messages: none, gzip or zstd")
    connections: PoolSettings


class SpillSettings(Section):
    """Where large results go instead of Redis."""

    above: Memory = Field(description="results larger than this, as stored, are written to files")
    folder: Annotated[str, _matching(r"/.+", "must be an absolute path|Write it as in /var/lib/superset/results")] = Field(
        description="folder that web and workers share"
    )
    claim: Name | None = Field(
        default=None, description="Kubernetes: an existing ReadWriteMany volume claim of the namespace, mounted at folder"
    )


class CachingSettings(Section):
    """How long results are kept, in seconds, and how."""

    chart_data_ttl: Positive = Field(description="chart data, unless the dataset or database says otherwise")
    query_results_ttl: Positive = Field(description="rows of SQL Lab queries, unless the database says otherwise")
    jitter: Annotated[int, Field(ge=0, le=50)] = Field(description="percent by which each lifetime is spread either way")
    early_refresh: Annotated[float, Field(ge=0, le=10, strict=False)] = Field(
        description="how eagerly one caller computes a value anew before it expires; 1 is usual, 0: never"
    )
    stale: NotNegative = Field(
        description="seconds past its lifetime that a value may be served while one caller refreshes it"
    )
    single_flight: bool = Field(description="identical cold requests wait for the first one's result")
    compression: ResultCompression = Field(description="of results: none, zlib or zstd; see docs/measurements.md")
    compress_above: Memory = Field(description="smaller results are stored as they are")
    max_result: Memory = Field(description="larger results, as stored, are refused with a message")
    spill: SpillSettings | None = Field(description="null: every result is in Redis")


class ResilienceSettings(Section):
    """How queries end under faults, and how many may wait."""

    max_queued: Positive = Field(description="messages in one queue beyond which a submission is refused at once")
    max_in_flight_per_user: Positive = Field(
        description="one user's queries, waiting or running, beyond which one is refused"
    )
    max_retries: NotNegative = Field(
        description="tries again of a read after a lost connection; a write is never tried again"
    )
    retry_backoff: Positive = Field(
        description="longest wait in seconds between tries; it doubles from one second, with jitter"
    )
    final_state: Annotated[int, Field(ge=30)] = Field(
        description="seconds after its worker or message is lost by which a query is failed, with the reason"
    )


class UrgentSettings(Section):
    """Queries that pass the others."""

    queue: Name = Field(description="where they go; a pool must listen")
    roles: tuple[str, ...] = Field(strict=False, description="Superset roles whose queries are always urgent")
    marker_roles: tuple[str, ...] = Field(
        strict=False, description="Superset roles that may mark one query urgent, by the header X-Superset-Async-Urgent: 1"
    )


class RateSettings(Section):
    """What the platform costs, for reports of cost by tenant, user or database."""

    worker_hour: Annotated[float, Field(ge=0, strict=False, allow_inf_nan=False)] = Field(
        description="one worker for an hour"
    )
    redis_hour: Annotated[float, Field(ge=0, strict=False, allow_inf_nan=False)] = Field(
        description="all Redis servers for an hour"
    )
    currency: Annotated[str, _matching(r"[A-Z]{3}", "must be a currency's code|Write it as in USD")] = Field(
        description="of the rates and budgets"
    )


class OperatorNamespaces(Section):
    """Where the cluster's operators run: they connect to servers of the stack."""

    keda: Name = Field(description="namespace of KEDA, which reads the broker where workers.scaling.kind is keda")
    cloudnativepg: Name = Field(description="namespace of CloudNativePG, which looks after its servers")


class NetworkSettings(Section):
    """Who outside the namespace is reached by its pods, and connects to them."""

    database_cidrs: tuple[Cidr, ...] = Field(strict=False, description="networks of the analytic databases")
    operator_namespaces: OperatorNamespaces


class ObjectivesSettings(Section):
    """What the stack promises over 30 days, for each queue and tenant; alerts page when it is about to be broken."""

    wait: Annotated[float, _one_of(WAIT_BUCKETS)] = Field(
        strict=False, description="seconds within which a worker begins a query; a bound of the histogram of waits"
    )
    waits_met: Objective = Field(strict=False, description="percent of queries that begin within that time")
    ends_well: Objective = Field(
        strict=False,
        description="percent of queries that end neither lost nor at a limit; an error of the query itself is no breach",
    )


class MetricsSettings(Section):
    """The exporter of queue metrics, and the rules on them; see docs/metrics.md and docs/alerts.md."""

    from_namespaces: tuple[Name, ...] = Field(strict=False, description="namespaces whose pods may scrape it")
    service_monitor: bool = Field(
        description="tell the Prometheus operator of it by a ServiceMonitor; false: by annotations of its Service"
    )
    rules: bool = Field(
        description="give the Prometheus operator the stack's alerts and recording rules as a PrometheusRule"
    )
    runbooks: str = Field(
        description="URL under which the people who are paged read docs/runbooks; each alert links to its page there"
    )
    objectives: ObjectivesSettings
    resources: ResourceSettings


class GuestSettings(Section):
    """A claim by which an embedded guest's token is a tenant's."""

    claim: Annotated[str, _matching(r"[A-Za-z_][\w.-]*", "must be a dotted path|Write it as in user.username")] = Field(
        description="dotted path in the token, such as user.username; a list matches by any of its items"
    )
    value: str = Field(description="what stands there; a trailing * matches any ending")


class QuotaSettings(Section):
    """The most that a tenant's pods may request together."""

    cpu: Cpu = Field(description="CPU, such as 8")
    memory: Memory = Field(description="memory, such as 16Gi")


class TenantSettings(Section):
    """One tenant: how its queries are recognised, and what they get. At least one of the first four must be given.

    A claim of the guest token decides first, then the user, then the user's roles, then the database.
    """

    users: tuple[str, ...] = Field(
        default=(), strict=False, description="Superset user names whose queries are this tenant's"
    )
    roles: tuple[str, ...] = Field(
        default=(), strict=False, description="Superset roles whose users' queries are this tenant's"
    )
    databases: tuple[str, ...] = Field(
        default=(), strict=False, description="names of databases in Superset; queries of them are this tenant's"
    )
    guests: tuple[GuestSettings, ...] = Field(
        default=(), strict=False, description="claims of embedded guests' tokens that are this tenant's"
    )
    pool: TenantPool = Field(
        default="dedicated", description="dedicated: workers of its own; shared: those of the default queue"
    )
    concurrency: Positive | None = Field(default=None, description="dedicated: child processes of each of its workers")
    min_workers: Positive | None = Field(default=None, description="dedicated: its workers at rest")
    max_workers: Positive | None = Field(default=None, description="dedicated: its workers under load")
    in_flight: Positive | None = Field(
        default=None, description="shared: children of one worker that it may hold at once; default: all but one"
    )
    priority: Priority = Field(
        default="normal",
        description="dedicated: whose pods are placed first; shared: whose turn comes first: low, normal, high",
    )
    quota: QuotaSettings | None = Field(
        default=None, description="dedicated: the most that its pods may request; null: no limit"
    )
    soft_time_limit: Positive | None = Field(default=None, description="seconds; default: celery.soft_time_limit")
    time_limit: Positive | None = Field(default=None, description="seconds; default: celery.time_limit")
    statement_timeout: Positive | None = Field(default=None, description="seconds; default: the stack's statement_timeout")
    result_ttl: Positive | None = Field(
        default=None, description="seconds that its results are kept; default: as in caching"
    )
    monthly_budget: Annotated[float, Field(gt=0, strict=False, allow_inf_nan=False)] | None = Field(
        default=None, description="in the rates' currency; reports say what is left of it"
    )


class DatabaseSettings(Section):
    """An analytic database to register in Superset. Without `uri` the whole URI is a secret: see docs/configuration.md."""

    uri: str | None = Field(default=None, description="SQLAlchemy URI without a password")
    statement_timeout: Positive | None = Field(default=None, description="seconds; default: the stack's statement_timeout")
    allow_dml: bool = Field(default=False, description="users may write; else sessions of PostgreSQL are read-only")
    sample: bool = Field(default=False, description="the generated sample database; local only")

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri is not None and urlsplit(uri).password is not None:
            raise ValueError(
                "must not contain a password|Leave uri out and store the whole URI as the secret "
                "superset-async:database_uris (pulumi config set --secret --path)"
            )
        return uri


class MaintenanceSettings(Section):
    """What Celery beat cleans up."""

    query_retention_days: Positive | None = Field(description="rows of SQL Lab's query table older than this go; null: kept")
    log_retention_days: Positive | None = Field(description="rows of Superset's action log older than this go; null: kept")
    cron: Cron = Field(description="when, in UTC: minute hour day-of-month month day-of-week")


def _is_day(value: object) -> object:
    """A day as its text. Unquoted it is a date to YAML, and to the engine a moment, which it also writes into the file."""
    text = value.isoformat() if type(value) is datetime.date else value
    if isinstance(text, str):
        text = text.removesuffix(" 00:00:00 +0000 UTC")
    try:
        datetime.date.fromisoformat(text if isinstance(text, str) and len(text) == 10 else "")
    except ValueError:
        raise ValueError("must be a day|Write it as in 2027-01-31") from None
    return text


class PolicyException(Section):
    """One rule of the policy pack that one resource may break, for a while; see docs/policies.md."""

    rule: str = Field(description="id of the rule")
    resource: str = Field(description="kind and name of the resource, such as Deployment/web")
    reason: Annotated[str, Field(min_length=10)] = Field(description="why, in a sentence")
    owner: Annotated[str, Field(min_length=2)] = Field(description="who answers for it")
    expires: Annotated[str, BeforeValidator(_is_day)] = Field(description="its last day, as in 2027-01-31")


class LocalSettings(Section):
    """Ports of the local platform, all on 127.0.0.1."""

    web_port: Port = Field(description="Superset")
    redis_port: Port = Field(description="first Redis server; a second one has the next port")
    postgres_port: Port = Field(description="PostgreSQL")
    exporter_port: Port = Field(description="metrics of the queues, for a Prometheus on this machine")
    prometheus_port: Port = Field(description="Prometheus, where it is started (make up OBSERVE=1)")
    alertmanager_port: Port = Field(description="Alertmanager, where it is started")


class Settings(Section):
    """Everything that a stack file says, complete."""

    topology: TopologyName = Field(description="which preset the rest of the file changes")
    platform: Platform = Field(description="where it runs: on this machine (local) or on a cluster (kubernetes)")
    environment: Literal["dev", "staging", "prod"] = Field(description="which environment this stack is")
    namespace: Name = Field(description="Kubernetes namespace, made by the stack")
    labels: dict[str, str] = Field(description="labels on every object, such as team and cost-center")
    images: ImageSettings
    redis: RedisTier
    postgres: PostgresSettings
    web: WebSettings
    celery: CelerySettings
    workers: WorkerSettings
    pools: dict[Name, WorkerOverrides] = Field(description="worker pools by name; tenants' pools are added")
    beat_resources: ResourceSettings
    metrics: MetricsSettings
    caching: CachingSettings
    resilience: ResilienceSettings
    urgent: UrgentSettings | None = Field(description="queries that pass the others; null: none do")
    rates: RateSettings
    statement_timeout: Positive = Field(description="seconds after which an analytic database itself ends a statement")
    row_limit: Positive = Field(description="most rows that SQL Lab returns")
    network: NetworkSettings
    databases: dict[Name, DatabaseSettings] = Field(description="analytic databases by name")
    tenants: dict[Name, TenantSettings] = Field(description="tenants by id")
    maintenance: MaintenanceSettings
    admin_username: Identifier = Field(description="first administrator; the password is generated")
    policy_exceptions: tuple[PolicyException, ...] = Field(
        strict=False,
        description="rules that a resource may break: a list of rule, resource, reason, owner and expires (a day)",
    )
    local: LocalSettings


@dataclass(frozen=True)
class Reading:
    """Settings read from a stack, and what was wrong with it.

    Where there are problems, each key in `repaired` has its preset's value instead of the stack's, so that the rest of the
    stack can still be checked; such settings must not be built from.
    """

    settings: Settings
    problems: tuple[Problem, ...]
    repaired: frozenset[str]


def read(config: Mapping[str, object]) -> Reading:
    """The settings in a stack's `superset-async:` keys, laid over the preset of the topology that they name."""
    problems: list[Problem] = []
    repaired: set[str] = set()
    topology = config.get("topology")
    if topology not in presets.NAMES:
        value = "missing" if topology is None else repr(topology)
        rule = f"must be one of {', '.join(presets.NAMES)}"
        problems.append(Problem("topology", value, rule, did_you_mean(str(topology), presets.NAMES)))
        repaired.add("topology")
        topology = "minimal"
    preset = presets.settings_of(cast(TopologyName, topology))
    given = cast(dict[str, Any], copy.deepcopy(dict(config))) | {"topology": topology}
    while True:
        try:
            settings = Settings.model_validate(presets.merge(preset, given))
        except ValidationError as error:
            for detail in error.errors():
                problem = _problem(detail)
                problems.append(problem)
                repaired.add(problem.key)
                _remove(given, detail["loc"])
        else:
            return Reading(settings, tuple(problems), frozenset(repaired))


def _remove(given: dict[str, Any], loc: tuple[int | str, ...]) -> None:
    """Take the value at `loc` out of `given`, or the nearest section around it that the stack file itself says."""
    parent, last, node = given, str(loc[0]), cast(Any, given)
    for part in loc:
        if not isinstance(node, dict) or part not in node:
            break
        parent, last, node = cast(dict[str, Any], node), str(part), cast(Any, node[part])
    parent.pop(last, None)


def _problem(detail: ErrorDetails) -> Problem:
    path, model = _locate(detail["loc"])
    key = ".".join(path)
    value = repr(detail["input"])
    value = value if len(value) <= 80 else value[:77] + "…"
    if detail["type"] == "extra_forbidden":
        return Problem(key, value, "is no key of a stack file", did_you_mean(path[-1], tuple(model.model_fields)))
    if detail["type"] == "missing":
        return Problem(key, "missing", "must be given", "Add it to the stack file")
    if detail["type"] == "value_error" and "password" in detail["msg"]:
        value = "(hidden)"
    rule, _, fix = detail["msg"].removeprefix("Value error, ").partition("|")
    rule = rule[0].lower() + rule[1:]
    return Problem(key, value, rule, fix or _describe(model, path[-1]))


def _locate(loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel]]:
    """The dotted path of an error as the stack file spells it, and the section that its last key belongs to."""
    model: type[BaseModel] = Settings
    path: list[str] = []
    section: type[BaseModel] = Settings
    inside_map = False
    for part in loc:
        if part == "[key]":
            continue
        path.append(str(part))
        if inside_map:
            section, inside_map = model, False
            continue
        section = model
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        inner, inside_map = _section_of(field.annotation)
        model = inner or model
    return path, section


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section model inside an annotation (`X`, `X | None`, `dict[str, X]`), and whether it is a map of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin = typing.get_origin(annotation)
    if origin is dict:
        return _section_of(typing.get_args(annotation)[1])[0], True
    if origin in (types.UnionType, typing.Union):
        for option in typing.get_args(annotation):
            found, is_map = _section_of(option)
            if found:
                return found, is_map
    return None, False


def _describe(model: type[BaseModel], key: str) -> str:
    field = model.model_fields.get(key)
    return f"It is: {field.description}" if field and field.description else "See docs/configuration.md"
