"""The pod of any process that runs Superset's code: web, worker, beat or job. They differ in command, role and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.authority import authority_mounts, authority_volumes
from components.common import (
    PREFIX,
    Scope,
    SecretRef,
    container_resources,
    container_security,
    content_hash,
    environment,
    leaves_lost_nodes,
    pod_security,
    scratch,
    secret_environment,
    secret_variable,
    spread,
)
from components.configuration import FILE, ConfigurationRef
from components.own_superset import OwnSupersetRef
from components.redis_access import RedisAccess, given_fingerprints, given_passwords
from topology import commands, readers
from topology.commands import ROLE_ENV, TOPOLOGY_ENV
from topology.model import ServerTls
from topology.settings.caching import Spill
from topology.settings.images import Images
from topology.settings.resources import Resources

#: The image's user, and the folder that holds the `runtime` package (runtime/Dockerfile).
USER = 1000
APP = "/app"
CONFIG = "/etc/superset-async"
SCRATCH = "/tmp"  # noqa: S108 a volume of the pod's own
#: What the volume with the authority of the metadata database's server is named after.
POSTGRES = "postgres"
#: Of the container that waits for the metadata database: half a second of CPU, 40 MB.
READY_RESOURCES = Resources(
    cpu_request_millis=20, cpu_limit_millis=1000, memory_request_bytes=64 * 2**20, memory_limit_bytes=128 * 2**20
)


@dataclass(frozen=True)
class SupersetArgs:
    """What every component that runs Superset's code needs."""

    scope: Scope
    images: Images
    configuration: ConfigurationRef
    #: Secret key, JWT secret and the passwords of PostgreSQL and of the Redis servers that this project runs.
    secrets: SecretRef
    #: Which of them is the metadata database's password; None where that is in no variable.
    postgres_password_env: str | None
    #: The Redis instances that they use.
    redis: Sequence[RedisAccess]
    #: How they verify the metadata database's server; None: they do not.
    postgres_tls: ServerTls | None = None
    #: Where web and workers keep large results.
    spill: Spill | None = None
    #: What makes it the team's own.
    own: OwnSupersetRef = field(default_factory=OwnSupersetRef)


@dataclass(frozen=True)
class Process:
    """One kind of process."""

    #: Name of its container.
    name: str
    role: readers.Process
    command: Sequence[str]
    resources: Resources
    #: Seconds between SIGTERM and SIGKILL.
    grace_period_seconds: int
    #: Labels of its pods, and those among them that select it.
    labels: dict[str, str]
    match: dict[str, str]
    #: Whether there can be several, to be spread over nodes.
    several: bool = False
    #: What it reads of the topology beside what all of its role read.
    reads: Sequence[object] = ()
    #: Name of the PriorityClass of its pods.
    priority_class: pulumi.Input[str] | None = None
    #: Secrets beside the ones that all processes have.
    secrets: Sequence[SecretRef] = ()
    environment: Sequence[core.EnvVarArgs] = ()
    ports: Sequence[core.ContainerPortArgs] = ()
    startup_probe: core.ProbeArgs | None = None
    readiness_probe: core.ProbeArgs | None = None
    liveness_probe: core.ProbeArgs | None = None
    lifecycle: core.LifecycleArgs | None = None
    restart_policy: str | None = None


def recently_written(seconds: int, prefix: str) -> list[str]:
    """The command of a probe that succeeds where a file whose path begins with `prefix` was written in the last `seconds`."""
    return ["sh", f"{APP}/runtime/start/recently_written.sh", str(seconds), prefix]


def secret_digest(args: SupersetArgs, process: Process) -> pulumi.Output[str]:
    """A digest that changes with any secret of the process."""
    digests = [each.fingerprint for each in (args.secrets, *process.secrets)]
    if args.own.fingerprint is not None:
        digests.append(args.own.fingerprint)
    return pulumi.Output.all(*digests, *given_fingerprints(args.redis)).apply("-".join)


def _ready(args: SupersetArgs) -> core.ContainerArgs:
    """What lets nothing start before the metadata database is prepared, by whatever the objects were applied."""
    variables = {TOPOLOGY_ENV: f"{CONFIG}/{FILE}", "HOME": SCRATCH, "PYTHONPATH": APP, "PYTHONUNBUFFERED": "1"}
    return core.ContainerArgs(
        name="ready",
        image=args.images.superset,
        image_pull_policy=args.images.pull_policy,
        command=commands.ready(),
        env=[
            *environment(variables),
            *(
                [secret_variable(args.postgres_password_env, args.secrets.name, args.postgres_password_env)]
                if args.postgres_password_env
                else []
            ),
        ],
        resources=container_resources(READY_RESOURCES),
        security_context=container_security(),
        volume_mounts=[
            core.VolumeMountArgs(name="config", mount_path=CONFIG, read_only=True),
            core.VolumeMountArgs(name="tmp", mount_path=SCRATCH),
            *authority_mounts(POSTGRES, args.postgres_tls),
        ],
    )


def pod_template(args: SupersetArgs, process: Process, account: pulumi.Input[str]) -> core.PodTemplateSpecArgs:
    """The pod of `process`: new configuration or a new secret that it reads makes a new template, and so rolls it."""
    spill = args.spill if args.spill and args.spill.claim and process.role in ("web", "worker") else None
    container = core.ContainerArgs(
        name=process.name,
        image=args.images.superset,
        image_pull_policy=args.images.pull_policy,
        command=list(process.command),
        env=[
            *environment(
                {
                    TOPOLOGY_ENV: f"{CONFIG}/{FILE}",
                    ROLE_ENV: process.role,
                    "SUPERSET_CONFIG_PATH": f"{APP}/runtime/start/superset_config.py",
                    "SUPERSET_HOME": f"{SCRATCH}/superset",
                    "HOME": SCRATCH,
                    "PYTHONPATH": APP,
                    "PYTHONUNBUFFERED": "1",
                }
            ),
            *process.environment,
            *secret_environment(args.secrets),
            *given_passwords(args.redis),
            *args.own.variables,
            *(args.own.web_variables if process.role == "web" else ()),
            *(variable for secret in process.secrets for variable in secret_environment(secret)),
        ],
        ports=list(process.ports) or None,
        resources=container_resources(process.resources),
        security_context=container_security(),
        startup_probe=process.startup_probe,
        readiness_probe=process.readiness_probe,
        liveness_probe=process.liveness_probe,
        lifecycle=process.lifecycle,
        volume_mounts=[
            core.VolumeMountArgs(name="config", mount_path=CONFIG, read_only=True),
            core.VolumeMountArgs(name="tmp", mount_path=SCRATCH),
            *(mount for access in args.redis for mount in access.mounts),
            *authority_mounts(POSTGRES, args.postgres_tls),
            *args.own.mounts,
            *([core.VolumeMountArgs(name="results", mount_path=spill.folder)] if spill else []),
        ],
    )
    return core.PodTemplateSpecArgs(
        metadata=meta.ObjectMetaArgs(
            labels=process.labels,
            annotations={
                f"{PREFIX}/config": _config_digest(args, process),
                f"{PREFIX}/secret": secret_digest(args, process),
                **({f"{PREFIX}/own-module": args.own.digest} if args.own.digest else {}),
            },
        ),
        spec=core.PodSpecArgs(
            service_account_name=account,
            automount_service_account_token=False,
            # Otherwise every Service of the namespace becomes variables such as REDIS_PORT in every container.
            enable_service_links=False,
            security_context=pod_security(USER),
            termination_grace_period_seconds=process.grace_period_seconds,
            restart_policy=process.restart_policy,
            priority_class_name=process.priority_class,
            tolerations=leaves_lost_nodes(),
            topology_spread_constraints=spread(process.match) if process.several else None,
            init_containers=None if process.role == "init" else [_ready(args)],
            containers=[container],
            volumes=[
                core.VolumeArgs(name="config", config_map=core.ConfigMapVolumeSourceArgs(name=args.configuration.name)),
                scratch("tmp", "2Gi"),
                *(volume for access in args.redis for volume in access.volumes),
                *authority_volumes(POSTGRES, args.postgres_tls),
                *args.own.volumes,
                *(
                    [
                        core.VolumeArgs(
                            name="results",
                            persistent_volume_claim=core.PersistentVolumeClaimVolumeSourceArgs(claim_name=spill.claim),
                        )
                    ]
                    if spill and spill.claim
                    else []
                ),
            ],
        ),
    )


def _config_digest(args: SupersetArgs, process: Process) -> pulumi.Output[str]:
    of_role = args.configuration.hashes[process.role]
    return of_role.apply(lambda found: content_hash(found, *process.reads)[:32]) if process.reads else of_role
