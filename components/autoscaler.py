"""What changes the number of a pool's workers: KEDA, which reads the broker, or an HPA, which reads a metric of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.autoscaling import v2 as autoscaling
from pulumi_kubernetes.meta import v1 as meta

from components.common import SUPERSET, Scope, labels, metadata
from components.redis import sentinel_name
from components.redis_access import RedisAccess
from components.web import cpu_metric
from topology import metric_names
from topology.model import SENTINEL_PORT, Pool, RedisDatabase, RedisRole
from topology.settings.workers import Scaling
from topology.valkey_conf import AUTHORITY

#: External metrics that an HPA asks for, of the exporter's, by way of the metrics adapter: messages of each `queue_name` that
#: wait or are in flight; and those that wait, by which it still scales out where those in flight are too many to be counted.
QUEUE_METRICS = (metric_names.MESSAGES, metric_names.DEPTH)
#: Celery's list of a queue has the queue's name. What workers have taken and not acknowledged is one hash for all queues.
UNACKNOWLEDGED = "unacked"
#: Seconds between two looks at the broker.
POLLING_SECONDS = 15


@dataclass(frozen=True)
class AutoscalerArgs:
    """What the scaler of one pool needs."""

    scope: Scope
    pool: Pool
    scaling: Scaling
    #: Name of the pool's Deployment.
    deployment: pulumi.Output[str]
    broker: RedisAccess
    broker_database: RedisDatabase
    #: Where KEDA finds the exporter's metrics; None: every message that is not acknowledged is this pool's, and its own number.
    exporter: pulumi.Input[str] | None


class Autoscaler(pulumi.ComponentResource):
    """Scales one pool's Deployment on CPU and on the messages of its queues: whichever asks for more workers.

    It goes up at once and down one worker at a time, each only after a window of lower load, so that long queries end in
    peace. There is one scaler a Deployment: of KEDA, or an HPA.
    """

    #: Name of the ScaledObject or HorizontalPodAutoscaler.
    scaler: str

    def __init__(self, name: str, args: AutoscalerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:autoscaler:Autoscaler", name, None, opts)
        self.scaler = name
        child = pulumi.ResourceOptions(parent=self)
        object_labels = labels(args.scope, SUPERSET, name)
        if args.scaling.kind == "keda":
            _keda(name, args, object_labels, child)
        else:
            _hpa(name, args, object_labels, child)
        self.register_outputs({"scaler": name})


def formula(queues: Sequence[str], *, by_exporter: bool) -> str:
    """Messages waiting in the pool's queues or in flight, as a sum over the names of triggers.

    An exporter that is away (its trigger has no value then) leaves those that wait.
    """
    waiting = [f"queue{number}" for number, _ in enumerate(queues)]
    in_flight = [f"(inflight{number} ?? 0)" for number, _ in enumerate(queues)] if by_exporter else ["running"]
    return " + ".join([*waiting, *in_flight])


def _triggers(args: AutoscalerArgs, authentication: str, username: str) -> list[dict[str, Any]]:
    """The length of each queue's list, what is in flight, and CPU.

    Celery keeps the messages in flight of all queues in one hash: its length is that of one pool's where there is only one, and
    otherwise the exporter, which reads of what queue each is, tells them apart.
    """
    broker = args.broker.instance
    host, port = (sentinel_name(broker), SENTINEL_PORT) if broker.sentinel else (args.broker.host, broker.port)
    # KEDA is in another namespace.
    domain = (
        ""
        if broker.existing or args.broker.made_host is not None
        else pulumi.Output.concat(".", args.scope.namespace, ".svc")
    )
    address = pulumi.Output.concat(host, domain, f":{port}")
    server: dict[str, Any] = (
        {"addresses": address, "sentinelMaster": broker.name, "username": username, "sentinelUsername": username}
        if broker.sentinel
        else {"address": address, "username": username}
    )
    if broker.tls:
        server["enableTLS"] = "true"

    def length(name: str, key: str) -> dict[str, Any]:
        return {
            "type": "redis-sentinel" if broker.sentinel else "redis",
            "name": name,
            "metricType": "AverageValue",
            "metadata": {
                **server,
                # The default is 0, whatever database the broker is in.
                "databaseIndex": str(args.broker_database.number),
                "listName": f"{args.broker_database.prefix}{key}",
                "listLength": str(args.scaling.queued_per_worker),
            },
            "authenticationRef": {"name": authentication},
        }

    def in_flight(name: str, queue: str) -> dict[str, Any]:
        return {
            "type": "metrics-api",
            "name": name,
            "metricType": "AverageValue",
            "metadata": {
                "url": args.exporter,
                "format": "prometheus",
                "valueLocation": f'{metric_names.IN_FLIGHT}{{{metric_names.QUEUE_LABEL}="{queue}"}}',
                "targetValue": str(args.scaling.queued_per_worker),
            },
        }

    queues = list(enumerate(args.pool.queues))
    return [
        *(length(f"queue{number}", queue) for number, queue in queues),
        *(
            (in_flight(f"inflight{number}", queue) for number, queue in queues)
            if args.exporter
            else [length("running", UNACKNOWLEDGED)]
        ),
        {
            "type": "cpu",
            "metricType": "Utilization",
            "metadata": {"value": str(args.scaling.cpu_target_percent)},
        },
    ]


def _keda(name: str, args: AutoscalerArgs, object_labels: dict[str, str], opts: pulumi.ResourceOptions) -> None:
    pool, broker = args.pool, args.broker.instance
    role: RedisRole = "reader"
    username = args.broker.user(role).username
    secret = {"name": args.broker.passwords[role].secret, "key": args.broker.passwords[role].key}
    authority = broker.tls.secret_name if broker.tls else None
    authentication = CustomResource(
        name,
        api_version="keda.sh/v1alpha1",
        kind="TriggerAuthentication",
        metadata=metadata(args.scope, name, object_labels),
        spec={
            "secretTargetRef": [
                *(
                    {"parameter": parameter, **secret}
                    for parameter in ("password", *(["sentinelPassword"] if broker.sentinel else []))
                ),
                *([{"parameter": "ca", "name": authority, "key": AUTHORITY}] if authority else []),
            ]
        },
        opts=opts,
    )
    CustomResource(
        f"{name}-scaled",
        api_version="keda.sh/v1alpha1",
        kind="ScaledObject",
        metadata=metadata(args.scope, name, object_labels),
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": args.deployment},
            "minReplicaCount": pool.min_workers,
            "maxReplicaCount": pool.max_workers,
            "pollingInterval": POLLING_SECONDS,
            # A broker that cannot be asked is no reason to take workers away; nor to ask it no more, an exporter that is.
            "fallback": {
                "failureThreshold": 3,
                "replicas": pool.min_workers,
                "behavior": "scalingModifiers" if args.exporter else "currentReplicasIfHigher",
            },
            "advanced": {
                "scalingModifiers": {
                    "formula": formula(pool.queues, by_exporter=args.exporter is not None),
                    "target": str(args.scaling.queued_per_worker),
                    "metricType": "AverageValue",
                },
                "horizontalPodAutoscalerConfig": {"behavior": _behaviour(args.scaling)},
            },
            "triggers": _triggers(args, name, username),
        },
        opts=pulumi.ResourceOptions(parent=opts.parent, depends_on=[authentication]),
    )


def _behaviour(scaling: Scaling) -> dict[str, Any]:
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 30},
                {"type": "Pods", "value": 2, "periodSeconds": 30},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": scaling.scale_in_window_seconds,
            "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _hpa(name: str, args: AutoscalerArgs, object_labels: dict[str, str], opts: pulumi.ResourceOptions) -> None:
    pool, scaling = args.pool, args.scaling
    behaviour = _behaviour(scaling)
    of_pool = meta.LabelSelectorRequirementArgs(key=metric_names.QUEUE_LABEL, operator="In", values=list(pool.queues))
    messages = [
        autoscaling.MetricSpecArgs(
            type="External",
            external=autoscaling.ExternalMetricSourceArgs(
                metric=autoscaling.MetricIdentifierArgs(
                    name=metric, selector=meta.LabelSelectorArgs(match_expressions=[of_pool])
                ),
                target=autoscaling.MetricTargetArgs(type="AverageValue", average_value=str(scaling.queued_per_worker)),
            ),
        )
        for metric in QUEUE_METRICS
    ]
    autoscaling.HorizontalPodAutoscaler(
        name,
        metadata=metadata(args.scope, name, object_labels),
        spec=autoscaling.HorizontalPodAutoscalerSpecArgs(
            scale_target_ref=autoscaling.CrossVersionObjectReferenceArgs(
                api_version="apps/v1", kind="Deployment", name=args.deployment
            ),
            min_replicas=pool.min_workers,
            max_replicas=pool.max_workers,
            metrics=[cpu_metric(scaling.cpu_target_percent), *messages],
            behavior=autoscaling.HorizontalPodAutoscalerBehaviorArgs(
                scale_up=_rules(behaviour["scaleUp"]), scale_down=_rules(behaviour["scaleDown"])
            ),
        ),
        opts=opts,
    )


def _rules(rules: dict[str, Any]) -> autoscaling.HPAScalingRulesArgs:
    return autoscaling.HPAScalingRulesArgs(
        stabilization_window_seconds=rules["stabilizationWindowSeconds"],
        select_policy=rules["selectPolicy"],
        policies=[
            autoscaling.HPAScalingPolicyArgs(
                type=policy["type"], value=policy["value"], period_seconds=policy["periodSeconds"]
            )
            for policy in rules["policies"]
        ],
    )
