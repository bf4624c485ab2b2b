"""All sections together: everything that a stack file may say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from topology.presets import TopologyName
from topology.settings.aws import AwsSettings
from topology.settings.caching import Caching
from topology.settings.databases import DatabaseSettings
from topology.settings.images import Images
from topology.settings.local import LocalSettings
from topology.settings.network import MetricsSettings, NetworkSettings
from topology.settings.policies import PolicyException
from topology.settings.postgres import PostgresSettings
from topology.settings.redis import RedisTier
from topology.settings.resilience import Resilience, Urgent
from topology.settings.resources import Resources
from topology.settings.section import Section
from topology.settings.superset import SupersetSettings
from topology.settings.tenants import Rates, TenantSettings
from topology.settings.tracing import TracingSettings
from topology.settings.values import Cron, Identifier, Name, ObjectName, Positive
from topology.settings.web import WebSettings
from topology.settings.workers import Celery, WorkerOverrides, WorkerSettings

PlatformName = Literal["local", "kubernetes", "aws"]


class MaintenanceSettings(Section):
    """What Celery beat cleans up."""

    query_retention_days: Positive | None = Field(description="rows of SQL Lab's query table older than this go; null: kept")
    log_retention_days: Positive | None = Field(description="rows of Superset's action log older than this go; null: kept")
    cron: Cron = Field(description="when, in UTC: minute hour day-of-month month day-of-week")


class Settings(Section):
    """Everything that a stack file says, complete."""

    topology: TopologyName = Field(description="which preset the rest of the file changes")
    platform: PlatformName = Field(
        description="where it runs: on this machine (local), on a cluster (kubernetes), or on AWS with its own data stores (aws)"
    )
    environment: Literal["dev", "staging", "prod"] = Field(description="which environment this stack is")
    namespace: Name = Field(description="Kubernetes namespace, made by the stack unless `existing_namespace`")
    existing_namespace: bool = Field(
        description="the namespace is there already, and somebody else's: it is used as it is, and neither labelled nor deleted"
    )
    storage_class: ObjectName | None = Field(
        description="StorageClass of the volumes; null: the cluster's default, which must exist (kubectl get storageclass)"
    )
    labels: dict[str, str] = Field(description="labels on every object, such as team and cost-center")
    images: Images
    redis: RedisTier
    postgres: PostgresSettings
    superset: SupersetSettings
    web: WebSettings
    celery: Celery
    workers: WorkerSettings
    pools: dict[Name, WorkerOverrides] = Field(description="worker pools by name; tenants' pools are added")
    beat_resources: Resources
    metrics: MetricsSettings
    caching: Caching
    resilience: Resilience
    urgent: Urgent | None = Field(description="queries that pass the others; null: none do")
    rates: Rates
    statement_timeout: Positive = Field(description="seconds after which an analytic database itself ends a statement")
    row_limit: Positive = Field(description="most rows that SQL Lab returns")
    network: NetworkSettings
    tracing: TracingSettings
    databases: dict[Name, DatabaseSettings] = Field(description="analytic databases by name")
    tenants: dict[Name, TenantSettings] = Field(description="tenants by id")
    maintenance: MaintenanceSettings
    admin_username: Identifier = Field(description="first administrator; the password is generated")
    policy_exceptions: tuple[PolicyException, ...] = Field(
        strict=False,
        description="rules that a resource may break: a list of rule, resource, reason, owner and expires (a day)",
    )
    local: LocalSettings
    aws: AwsSettings | None = Field(description="platform aws: account, network, cluster and data stores; null elsewhere")
