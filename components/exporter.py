"""The exporter of queue metrics: a small pod of its own, how Prometheus finds it, and how an HPA's question reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import yaml
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.common import (
    PREFIX,
    Scope,
    container_resources,
    container_security,
    environment,
    labels,
    leaves_lost_nodes,
    metadata,
    name_of,
    pod_security,
    scratch,
    selector,
    service_account,
)
from components.configuration import FILE, ConfigurationRef
from components.redis_access import RedisAccess
from components.superset import APP, CONFIG, SCRATCH, USER
from topology import metric_names
from topology.commands import TOPOLOGY_ENV
from topology.model import Exporter, RedisDatabase, RedisRole
from topology.settings.images import Images

NAME = "queue-exporter"
PORT = "metrics"
SCRAPE_SECONDS = 15
#: Key of the ConfigMap with the adapter's rules: Helm values of prometheus-adapter.
ADAPTER_VALUES = "values.yaml"
#: What an HPA may ask for.
SCALED_ON = (metric_names.DEPTH, metric_names.IN_FLIGHT, metric_names.MESSAGES)


def adapter_rules() -> list[dict[str, Any]]:
    """`externalRules` of prometheus-adapter, which answer `external.metrics.k8s.io` from what Prometheus has.

    The adapter puts an HPA's selector and its namespace between the braces. A value for each queue goes back, and the HPA adds
    them up. Two exporters, while one replaces the other, count the same messages: hence `max`. No exporter is no value, which
    stops a scaler from taking workers away.
    """
    names = "|".join(SCALED_ON)
    return [
        {
            "seriesQuery": f'{{__name__=~"^({names})$",namespace!="",{metric_names.QUEUE_LABEL}!=""}}',
            "metricsQuery": f"max(<<.Series>>{{<<.LabelMatchers>>}}) by ({metric_names.QUEUE_LABEL})",
            "resources": {"overrides": {"namespace": {"resource": "namespace"}}},
        }
    ]


def adapter_values() -> str:
    """The same as Helm values of prometheus-adapter."""
    return yaml.safe_dump({"rules": {"external": adapter_rules()}}, sort_keys=False, width=1000)


@dataclass(frozen=True)
class QueueExporterArgs:
    """What the exporter needs."""

    scope: Scope
    images: Images
    exporter: Exporter
    #: Its command line.
    command: Sequence[str]
    configuration: ConfigurationRef
    broker: RedisAccess
    broker_database: RedisDatabase
    #: Whether an HPA asks for the metrics, by way of an adapter.
    feeds_adapter: bool


class QueueExporter(pulumi.ComponentResource):
    """One pod that reads the broker, its Service, and a ServiceMonitor or annotations by which Prometheus finds it.

    It has the password of a user who only reads the broker, and no other, and only the broker to talk to. It is ready whether or
    not the broker is: that the broker is gone is what it has to tell. Where an HPA needs them, the adapter's rules lie in a
    ConfigMap, to be applied by whoever runs the cluster's one adapter.
    """

    #: Name of the Service.
    service: pulumi.Output[str]
    #: Where it serves its metrics, for clients in other namespaces too.
    url: pulumi.Output[str]
    #: Labels of its pod, for network policies.
    match: dict[str, str]

    def __init__(self, name: str, args: QueueExporterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:exporter:QueueExporter", name, None, opts)
        scope = args.scope
        child = pulumi.ResourceOptions(parent=self)
        self.match = selector(scope, NAME, name)
        object_labels = labels(scope, NAME, name)
        account = service_account(name, scope, object_labels, child)
        apps.Deployment(
            name,
            metadata=metadata(scope, name, object_labels),
            spec=apps.DeploymentSpecArgs(
                replicas=1,
                revision_history_limit=3,
                selector=meta.LabelSelectorArgs(match_labels=self.match),
                # The new one answers before the old one goes: a scaler never lacks its metric.
                strategy=apps.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=_pod(name, args, object_labels, account),
            ),
            opts=child,
        )
        service = core.Service(
            name,
            metadata=metadata(
                scope, name, object_labels, None if args.exporter.service_monitor else _annotations(args.exporter.port)
            ),
            spec=core.ServiceSpecArgs(
                selector=self.match,
                ports=[core.ServicePortArgs(name=PORT, port=args.exporter.port, target_port=PORT, app_protocol="http")],
            ),
            opts=child,
        )
        if args.exporter.service_monitor:
            _service_monitor(name, scope, self.match, object_labels, child)
        if args.feeds_adapter:
            rules = f"{name}-adapter-rules"
            core.ConfigMap(
                rules,
                metadata=metadata(scope, rules, object_labels),
                data={ADAPTER_VALUES: adapter_values()},
                opts=child,
            )
        self.service = name_of(service.metadata, name)
        self.url = pulumi.Output.concat("http://", self.service, ".", scope.namespace, f".svc:{args.exporter.port}/metrics")
        self.register_outputs({"service": self.service})


def _annotations(port: int) -> dict[str, pulumi.Input[str]]:
    """What a Prometheus that discovers Services goes by, as its community's Helm chart configures it."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}


def _service_monitor(
    name: str, scope: Scope, match: dict[str, str], object_labels: dict[str, str], opts: pulumi.ResourceOptions
) -> None:
    CustomResource(
        f"{name}-monitor",
        api_version="monitoring.coreos.com/v1",
        kind="ServiceMonitor",
        metadata=metadata(scope, name, object_labels),
        spec={
            "selector": {"matchLabels": match},
            "endpoints": [{"port": PORT, "path": "/metrics", "interval": f"{SCRAPE_SECONDS}s", "scrapeTimeout": "10s"}],
        },
        opts=opts,
    )


def _pod(
    name: str, args: QueueExporterArgs, object_labels: dict[str, str], account: pulumi.Input[str]
) -> core.PodTemplateSpecArgs:
    role: RedisRole = "reader"
    return core.PodTemplateSpecArgs(
        metadata=meta.ObjectMetaArgs(
            labels=object_labels,
            annotations={
                f"{PREFIX}/config": args.configuration.hashes["exporter"],
                f"{PREFIX}/secret": args.broker.passwords[role].fingerprint,
            },
        ),
        spec=core.PodSpecArgs(
            service_account_name=account,
            automount_service_account_token=False,
            enable_service_links=False,
            security_context=pod_security(USER),
            termination_grace_period_seconds=10,
            tolerations=leaves_lost_nodes(),
            containers=[
                core.ContainerArgs(
                    name=name,
                    image=args.images.superset,
                    image_pull_policy=args.images.pull_policy,
                    command=list(args.command),
                    env=[
                        *environment(
                            {
                                TOPOLOGY_ENV: f"{CONFIG}/{FILE}",
                                "HOME": SCRATCH,
                                "PYTHONPATH": APP,
                                "PYTHONUNBUFFERED": "1",
                            }
                        ),
                        args.broker.variable(role),
                    ],
                    ports=[core.ContainerPortArgs(name=PORT, container_port=args.exporter.port)],
                    resources=container_resources(args.exporter.resources),
                    security_context=container_security(),
                    # A third of a second of CPU until it listens; under its limit, a few seconds.
                    startup_probe=_health(period=2, failures=30),
                    readiness_probe=_health(period=10, failures=3),
                    liveness_probe=_health(period=20, failures=3),
                    volume_mounts=[
                        core.VolumeMountArgs(name="config", mount_path=CONFIG, read_only=True),
                        core.VolumeMountArgs(name="tmp", mount_path=SCRATCH),
                        *args.broker.mounts,
                    ],
                )
            ],
            volumes=[
                core.VolumeArgs(name="config", config_map=core.ConfigMapVolumeSourceArgs(name=args.configuration.name)),
                scratch("tmp", "16Mi"),
                *args.broker.volumes,
            ],
        ),
    )


def _health(*, period: int, failures: int) -> core.ProbeArgs:
    return core.ProbeArgs(
        http_get=core.HTTPGetActionArgs(path="/health", port=PORT),
        period_seconds=period,
        timeout_seconds=5,
        failure_threshold=failures,
    )
