"""The web tier: gunicorn pods behind a Service, scaled on CPU."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.autoscaling import v2 as autoscaling
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.common import (
    SUPERSET,
    disruption_budget,
    labels,
    metadata,
    name_of,
    replica_annotations,
    replica_options,
    selector,
    service_account,
)
from components.superset import Process, SupersetArgs, pod_template
from topology.model import Web

#: Seconds that a stopping pod goes on serving, until every node's proxy has taken it out of the Service.
DRAIN_SECONDS = 10
#: What a proxy waits longer than the web tier itself, so that users read Superset's answer and not the proxy's.
PROXY_MARGIN_SECONDS = 10


def proxy_seconds(web: Web) -> int:
    """Seconds that what stands before the web tier waits for an answer."""
    return web.request_timeout_seconds + PROXY_MARGIN_SECONDS


@dataclass(frozen=True)
class WebTierArgs:
    """What the web tier needs."""

    superset: SupersetArgs
    web: Web
    #: gunicorn's command line.
    command: list[str]


class WebTier(pulumi.ComponentResource):
    """A Deployment that never has fewer ready pods than before while it rolls, and its Service.

    It is scaled on CPU, never on memory: Superset's processes do not give memory back, so such a scaler never scales in.
    """

    #: Name of the Service, which is its host name in the namespace.
    service: pulumi.Output[str]
    #: Labels of its pods, for network policies.
    match: dict[str, str]

    def __init__(self, name: str, args: WebTierArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:web:WebTier", name, None, opts)
        scope, web = args.superset.scope, args.web
        child = pulumi.ResourceOptions(parent=self)
        self.match = selector(scope, SUPERSET, name)
        object_labels = labels(scope, SUPERSET, name)
        several = web.max_replicas > 1
        process = Process(
            name=name,
            role="web",
            command=args.command,
            resources=web.resources,
            grace_period_seconds=DRAIN_SECONDS + web.request_timeout_seconds + 10,
            labels=object_labels,
            match=self.match,
            several=several,
            ports=[core.ContainerPortArgs(name="http", container_port=web.port)],
            # 9 to 30 seconds measured until the first answer, on an idle machine.
            startup_probe=_health(period=3, failures=100),
            readiness_probe=_health(period=5, failures=3),
            # Says nothing of Redis or PostgreSQL: their failure must not restart every web pod at once.
            liveness_probe=_health(period=15, failures=4),
            lifecycle=core.LifecycleArgs(
                # A command, since the handler `sleep` needs Kubernetes 1.30.
                pre_stop=core.LifecycleHandlerArgs(exec_=core.ExecActionArgs(command=["sleep", str(DRAIN_SECONDS)]))
            ),
        )
        deployment = apps.Deployment(
            name,
            metadata=metadata(
                scope,
                name,
                object_labels,
                replica_annotations(args.superset.own.annotations, scaled=web.cpu_target_percent is not None),
            ),
            spec=apps.DeploymentSpecArgs(
                # What a scaler decides must not be decided here as well.
                replicas=None if web.cpu_target_percent else web.min_replicas,
                revision_history_limit=3,
                selector=meta.LabelSelectorArgs(match_labels=self.match),
                strategy=apps.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=pod_template(args.superset, process, service_account(name, scope, object_labels, child)),
            ),
            opts=replica_options(child, scaled=web.cpu_target_percent is not None),
        )
        service = core.Service(
            name,
            metadata=metadata(scope, name, object_labels),
            spec=core.ServiceSpecArgs(
                selector=self.match,
                ports=[core.ServicePortArgs(name="http", port=web.port, target_port="http", app_protocol="http")],
            ),
            opts=child,
        )
        if several:
            disruption_budget(name, scope, self.match, object_labels, child)
        if web.cpu_target_percent:
            _cpu_scaler(name, args, object_labels, deployment, child)
        self.service = name_of(service.metadata, name)
        self.register_outputs({"service": self.service})


def _health(*, period: int, failures: int) -> core.ProbeArgs:
    return core.ProbeArgs(
        http_get=core.HTTPGetActionArgs(path="/health", port="http"),
        period_seconds=period,
        timeout_seconds=5,
        failure_threshold=failures,
    )


def _cpu_scaler(
    name: str,
    args: WebTierArgs,
    object_labels: dict[str, str],
    deployment: apps.Deployment,
    opts: pulumi.ResourceOptions,
) -> None:
    web = args.web
    autoscaling.HorizontalPodAutoscaler(
        name,
        metadata=metadata(args.superset.scope, name, object_labels),
        spec=autoscaling.HorizontalPodAutoscalerSpecArgs(
            scale_target_ref=autoscaling.CrossVersionObjectReferenceArgs(
                api_version="apps/v1",
                kind="Deployment",
                name=name_of(deployment.metadata, name),
            ),
            min_replicas=web.min_replicas,
            max_replicas=web.max_replicas,
            metrics=[cpu_metric(web.cpu_target_percent or 0)],
            behavior=autoscaling.HorizontalPodAutoscalerBehaviorArgs(
                scale_down=autoscaling.HPAScalingRulesArgs(stabilization_window_seconds=300)
            ),
        ),
        opts=opts,
    )


def cpu_metric(percent: int) -> autoscaling.MetricSpecArgs:
    """Scale on CPU, in percent of what the pods request."""
    return autoscaling.MetricSpecArgs(
        type="Resource",
        resource=autoscaling.ResourceMetricSourceArgs(
            name="cpu", target=autoscaling.MetricTargetArgs(type="Utilization", average_utilization=percent)
        ),
    )
