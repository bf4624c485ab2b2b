"""A pool of Celery workers on queues of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.meta import v1 as meta

from components.common import (
    PREFIX,
    SUPERSET,
    disruption_budget,
    environment,
    exec_probe,
    labels,
    metadata,
    name_of,
    replica_annotations,
    replica_options,
    selector,
    service_account,
)
from components.superset import SCRATCH, Process, SupersetArgs, pod_template, recently_written
from runtime.observability.heartbeat import HEARTBEAT_ENV, HUNG_AFTER_SECONDS
from topology.model import Pool

HEARTBEAT = f"{SCRATCH}/heartbeat"
#: Seconds that a hung worker has to end. It will not use them: the pod's own period, in which a worker finishes its queries,
#: would only be time in which nobody else gets them.
HUNG_GRACE_SECONDS = 30


@dataclass(frozen=True)
class WorkersArgs:
    """What a worker pool needs."""

    superset: SupersetArgs
    pool: Pool
    #: What the workers read of the topology for themselves alone (`topology.readers.of_pool`).
    reads: Sequence[object]
    #: Name of the PriorityClass of a tenant's own workers.
    priority_class: pulumi.Input[str] | None
    #: The worker's command line; it starts Celery itself, no shell, so that Celery gets the pod's SIGTERM.
    command: list[str]


class Workers(pulumi.ComponentResource):
    """A Deployment of workers: on SIGTERM each takes no more work and has the pool's grace period to finish what it runs."""

    #: Name of the Deployment.
    deployment: pulumi.Output[str]
    #: Labels of its pods, for network policies.
    match: dict[str, str]

    def __init__(self, name: str, args: WorkersArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:workers:Workers", name, None, opts)
        scope, pool = args.superset.scope, args.pool
        child = pulumi.ResourceOptions(parent=self)
        self.match = selector(scope, SUPERSET, name)
        object_labels = {**labels(scope, SUPERSET, name), f"{PREFIX}/pool": pool.name}
        several = pool.max_workers > 1
        process = Process(
            name="worker",
            role="worker",
            command=args.command,
            resources=pool.resources,
            grace_period_seconds=pool.grace_period_seconds,
            labels=object_labels,
            match=self.match,
            several=several,
            reads=args.reads,
            priority_class=args.priority_class,
            environment=environment({HEARTBEAT_ENV: HEARTBEAT}),
            startup_probe=exec_probe(recently_written(60, HEARTBEAT), period=5, failures=60),
            liveness_probe=exec_probe(
                recently_written(HUNG_AFTER_SECONDS, HEARTBEAT), period=30, failures=2, grace=HUNG_GRACE_SECONDS
            ),
        )
        deployment = apps.Deployment(
            name,
            metadata=metadata(
                scope,
                name,
                object_labels,
                replica_annotations(args.superset.own.annotations, scaled=pool.scaling is not None),
            ),
            spec=apps.DeploymentSpecArgs(
                # What a scaler decides must not be decided here as well.
                replicas=None if pool.scaling else pool.min_workers,
                revision_history_limit=3,
                selector=meta.LabelSelectorArgs(match_labels=self.match),
                strategy=apps.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.RollingUpdateDeploymentArgs(max_surge="25%", max_unavailable=0),
                ),
                # A warm shutdown may take the whole grace period.
                progress_deadline_seconds=pool.grace_period_seconds + 600,
                template=pod_template(args.superset, process, service_account(name, scope, object_labels, child)),
            ),
            opts=replica_options(child, scaled=pool.scaling is not None),
        )
        if several:
            disruption_budget(name, scope, self.match, object_labels, child)
        self.deployment = name_of(deployment.metadata, name)
        self.register_outputs({"deployment": self.deployment})
