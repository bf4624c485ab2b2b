"""Celery beat, which sends the scheduled jobs, and in which the reaper of lost queries lives: exactly one."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.meta import v1 as meta

from components.common import SUPERSET, exec_probe, labels, metadata, name_of, selector, service_account
from components.superset import SCRATCH, Process, SupersetArgs, pod_template, recently_written
from topology import commands
from topology.model import Beat

SCHEDULE = f"{SCRATCH}/beat-schedule"


@dataclass(frozen=True)
class BeatSchedulerArgs:
    """What beat needs."""

    superset: SupersetArgs
    beat: Beat


class BeatScheduler(pulumi.ComponentResource):
    """One beat, replaced and never doubled: two would send every job twice."""

    #: Name of the Deployment.
    deployment: pulumi.Output[str]

    def __init__(self, name: str, args: BeatSchedulerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:beat:BeatScheduler", name, None, opts)
        scope = args.superset.scope
        child = pulumi.ResourceOptions(parent=self)
        match = selector(scope, SUPERSET, name)
        object_labels = labels(scope, SUPERSET, name)
        process = Process(
            name=name,
            role="beat",
            command=commands.beat(SCHEDULE),
            resources=args.beat.resources,
            grace_period_seconds=30,
            labels=object_labels,
            match=match,
            # Beat writes its schedule at least every five minutes, also when nothing is due.
            startup_probe=exec_probe(recently_written(5 * 60, SCHEDULE), period=5, failures=60),
            liveness_probe=exec_probe(recently_written(20 * 60, SCHEDULE), period=60, failures=2),
        )
        deployment = apps.Deployment(
            name,
            metadata=metadata(scope, name, object_labels, args.superset.own.annotations),
            spec=apps.DeploymentSpecArgs(
                replicas=1,
                revision_history_limit=3,
                selector=meta.LabelSelectorArgs(match_labels=match),
                strategy=apps.DeploymentStrategyArgs(type="Recreate"),
                template=pod_template(args.superset, process, service_account(name, scope, object_labels, child)),
            ),
            opts=child,
        )
        self.deployment = name_of(deployment.metadata, name)
        self.register_outputs({"deployment": self.deployment})
