"""Dumps of the metadata database to a volume, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.batch import v1 as batch
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components import scripts
from components.authority import authority_mounts, authority_volumes
from components.common import (
    PREFIX,
    Scope,
    claim_spec,
    container_resources,
    container_security,
    content_hash,
    environment,
    labels,
    metadata,
    name_of,
    pod_security,
    scratch,
    secret_variable,
    selector,
    service_account,
)
from components.postgres import PASSWORD, user_of
from topology.model import Postgres
from topology.server_tls import libpq_options
from topology.settings.images import Images
from topology.settings.postgres import Backup
from topology.settings.resources import Resources

NAME = "postgres-backup"
DUMPS = "/dumps"
SCRIPTS = "/etc/backup"
#: A dump streams; it holds little in memory.
RESOURCES = Resources(
    cpu_request_millis=100, cpu_limit_millis=1000, memory_request_bytes=128 * 2**20, memory_limit_bytes=512 * 2**20
)


@dataclass(frozen=True)
class MetadataBackupArgs:
    """What dumps of the metadata database need."""

    scope: Scope
    postgres: Postgres
    backup: Backup
    images: Images
    #: The server's Secret with the role's password.
    secret: pulumi.Output[str]


class MetadataBackup(pulumi.ComponentResource):
    """A CronJob that dumps to a volume of its own, and a suspended one that restores.

    `kubectl create job --from=cronjob/<name>-restore <job>` puts the newest dump back.
    """

    #: Labels of the pods, for network policies.
    match: dict[str, str]
    #: Name of the CronJob that dumps.
    job: pulumi.Output[str]

    def __init__(self, name: str, args: MetadataBackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:backup:MetadataBackup", name, None, opts)
        scope = args.scope
        child = pulumi.ResourceOptions(parent=self)
        self.match = selector(scope, NAME, name)
        self._labels = labels(scope, NAME, name)
        self._args = args
        self._account = service_account(name, scope, self._labels, child)
        files = scripts.texts("dump.sh", "restore.sh")
        config = core.ConfigMap(
            f"{name}-config", metadata=metadata(scope, f"{name}-config", self._labels), data=files, opts=child
        )
        claim = core.PersistentVolumeClaim(
            name,
            # A volume may be bound only when a pod uses it, which is at night.
            metadata=metadata(scope, name, self._labels, {"pulumi.com/skipAwait": "true"}),
            spec=claim_spec(scope, args.backup.volume_bytes),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=True, retain_on_delete=True)),
        )
        volumes = [
            core.VolumeArgs(
                name="config",
                config_map=core.ConfigMapVolumeSourceArgs(name=name_of(config.metadata, f"{name}-config")),
            ),
            core.VolumeArgs(
                name="dumps",
                persistent_volume_claim=core.PersistentVolumeClaimVolumeSourceArgs(claim_name=name_of(claim.metadata, name)),
            ),
            scratch("tmp", "64Mi"),
            *authority_volumes(NAME, args.postgres.tls),
        ]
        digest = content_hash(files)[:32]
        dump = self._cron_job(name, "dump", args.backup.cron, volumes, digest, suspend=False, opts=child)
        self._cron_job(f"{name}-restore", "restore", "0 0 1 1 *", volumes, digest, suspend=True, opts=child)
        self.job = name_of(dump.metadata, name)
        self.register_outputs({"job": self.job})

    def _cron_job(
        self,
        name: str,
        script: str,
        cron: str,
        volumes: list[core.VolumeArgs],
        digest: str,
        *,
        suspend: bool,
        opts: pulumi.ResourceOptions,
    ) -> batch.CronJob:
        postgres, images = self._args.postgres, self._args.images
        variables = {
            "DUMPS": DUMPS,
            "KEEP": str(self._args.backup.keep),
            "PGHOST": postgres.host,
            "PGPORT": str(postgres.port),
            "PGUSER": postgres.user,
            "PGDATABASE": postgres.database,
            **({f"PG{key.upper()}": value for key, value in libpq_options(postgres.tls).items()} if postgres.tls else {}),
        }
        container = core.ContainerArgs(
            name=script,
            image=images.postgres,
            image_pull_policy=images.pull_policy,
            command=["sh", f"{SCRIPTS}/{script}.sh"],
            env=[*environment(variables), secret_variable("PGPASSWORD", self._args.secret, PASSWORD)],
            resources=container_resources(RESOURCES),
            security_context=container_security(),
            volume_mounts=[
                core.VolumeMountArgs(name="config", mount_path=SCRIPTS, read_only=True),
                core.VolumeMountArgs(name="dumps", mount_path=DUMPS),
                core.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 a volume of the pod's own
                *authority_mounts(NAME, postgres.tls),
            ],
        )
        pod = core.PodTemplateSpecArgs(
            metadata=meta.ObjectMetaArgs(labels=self._labels, annotations={f"{PREFIX}/config": digest}),
            spec=core.PodSpecArgs(
                service_account_name=self._account,
                automount_service_account_token=False,
                enable_service_links=False,
                restart_policy="Never",
                security_context=pod_security(user_of(postgres, images)),
                containers=[container],
                volumes=volumes,
            ),
        )
        return batch.CronJob(
            name,
            metadata=metadata(self._args.scope, name, self._labels),
            spec=batch.CronJobSpecArgs(
                schedule=cron,
                time_zone="Etc/UTC",
                suspend=suspend,
                # The volume is one pod's at a time.
                concurrency_policy="Forbid",
                starting_deadline_seconds=3600,
                successful_jobs_history_limit=3,
                failed_jobs_history_limit=3,
                job_template=batch.JobTemplateSpecArgs(
                    spec=batch.JobSpecArgs(backoff_limit=2, active_deadline_seconds=6 * 3600, template=pod)
                ),
            ),
            opts=opts,
        )
