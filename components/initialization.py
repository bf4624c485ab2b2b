"""The job that prepares the metadata database, before anything else of Superset runs."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.batch import v1 as batch

from components.common import (
    SUPERSET,
    SecretRef,
    content_hash,
    labels,
    metadata,
    name_of,
    selector,
    service_account,
)
from components.superset import Process, SupersetArgs, pod_template, secret_digest
from runtime.queries import migrations
from topology import commands
from topology.settings.resources import Resources

#: It loads the same application as a web process, once, and holds no more.
RESOURCES = Resources(
    cpu_request_millis=250,
    cpu_limit_millis=2000,
    memory_request_bytes=512 * 2**20,
    memory_limit_bytes=2**30,
)


#: Seconds after which the job has failed, whatever it waits for.
DEADLINE_SECONDS = 3600


@dataclass(frozen=True)
class InitializationArgs:
    """What the job needs."""

    superset: SupersetArgs
    #: The administrator's password and the URIs of analytic databases.
    secrets: SecretRef


class Initialization(pulumi.ComponentResource):
    """Migrations, roles, the administrator and the declared databases, as a Job that is safe to run again.

    Its name carries a digest of its whole pod template, of configuration, secrets and the newest migration, since a Job cannot
    be changed: new content, new Job. One that failed is made anew by the next `up`.
    """

    #: Name of the Job.
    job: pulumi.Output[str]

    def __init__(self, name: str, args: InitializationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:initialization:Initialization", name, None, opts)
        scope = args.superset.scope
        child = pulumi.ResourceOptions(parent=self)
        object_labels = labels(scope, SUPERSET, name)
        process = Process(
            name=name,
            role="init",
            command=commands.migrate(),
            resources=RESOURCES,
            grace_period_seconds=120,
            labels=object_labels,
            match=selector(scope, SUPERSET, name),
            secrets=(args.secrets,),
            restart_policy="OnFailure",
        )
        template = pod_template(args.superset, process, service_account(name, scope, object_labels, child))
        job_name = pulumi.Output.all(
            configuration=args.superset.configuration.hashes["init"],
            secret=secret_digest(args.superset, process),
            template=pulumi.Output.json_dumps(template, sort_keys=True, default=vars),
        ).apply(lambda known: f"{name}-{content_hash(known, migrations.HEAD)[:10]}")
        job = batch.Job(
            name,
            metadata=metadata(scope, job_name, object_labels, {"pulumi.com/replaceUnready": "true"}),
            spec=batch.JobSpecArgs(
                # Waits of 10 s to 6 minutes between tries: half an hour in all for a database that is slow to come.
                backoff_limit=8,
                active_deadline_seconds=DEADLINE_SECONDS,
                template=template,
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                # The engine would stop waiting after ten minutes, with the job still at work.
                custom_timeouts=pulumi.CustomTimeouts(
                    create=f"{DEADLINE_SECONDS + 300}s", update=f"{DEADLINE_SECONDS + 300}s"
                ),
            ),
        )
        self.job = name_of(job.metadata, name)
        self.register_outputs({"job": self.job})
