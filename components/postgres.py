"""The metadata database: a PostgreSQL server of the stack's own."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components import scripts
from components.certificate import Certificate, CertificateArgs, server_mounts, server_volumes, service_names
from components.common import (
    PREFIX,
    Scope,
    container_resources,
    container_security,
    content_hash,
    environment,
    exec_probe,
    fingerprint,
    labels,
    metadata,
    name_of,
    pod_security,
    scratch,
    secret_variable,
    selector,
    server_labels,
    service_account,
    volume_claim,
)
from topology.model import Postgres
from topology.postgres_settings import arguments, server_settings
from topology.settings.images import Images
from topology.valkey_conf import CERTIFICATE, KEY

NAME = "postgres"
DATA = "/data"
SCRIPTS = "/etc/postgres"
SOCKETS = "/var/run/postgresql"
TLS = "/etc/postgres-tls"
PASSWORD = "password"  # noqa: S105 the key of a Secret
#: The server's superuser. Nothing connects as it over the network; `kubectl exec … psql -U postgres` does, by the socket.
SUPERUSER = "postgres"


def server_arguments(postgres: Postgres) -> list[str]:
    """Command line of the server."""
    settings = {
        **server_settings(postgres),
        "listen_addresses": "*",
        "port": str(postgres.port),
        "hba_file": f"{SCRIPTS}/pg_hba.conf",
        "unix_socket_directories": SOCKETS,
        **({"ssl": "on", "ssl_cert_file": f"{TLS}/{CERTIFICATE}", "ssl_key_file": f"{TLS}/{KEY}"} if postgres.tls else {}),
    }
    return ["postgres", *arguments(settings)]


def client_rules(postgres: Postgres) -> str:
    """The server's pg_hba.conf: the superuser by the socket alone, everybody else by password, over TLS where there is TLS."""
    return f"local all {SUPERUSER} peer\n{'hostssl' if postgres.tls else 'host'} all all all scram-sha-256\n"


def certificate_names(postgres: Postgres, namespace: str) -> list[str]:
    """DNS names that the certificate of a server of the stack's must have, wherever clients ask for it from."""
    return service_names(postgres.host, namespace)


def user_of(postgres: Postgres, images: Images) -> int:
    """The id of the `postgres` user in the image: what the stack says, else that of the official Debian images, or of
    CloudNativePG's. initdb refuses a user that the image does not know.
    """
    return images.postgres_user or (26 if postgres.kind == "cloudnativepg" else 999)


@dataclass(frozen=True)
class PostgresArgs:
    """What the metadata database needs."""

    scope: Scope
    postgres: Postgres
    images: Images
    #: Password of the role that owns the metadata database.
    password: pulumi.Input[str]


class PostgresServer(pulumi.ComponentResource):
    """A PostgreSQL server: a StatefulSet with its volume and Service, and the role and database that Superset uses.

    Role, password and database are made again at every start of the pod, so that a new password needs only a restart.
    """

    #: Labels of its pods, for network policies.
    match: dict[str, str]
    #: The Secret with the role's password.
    secret: pulumi.Output[str]

    def __init__(self, name: str, args: PostgresArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:postgres:PostgresServer", name, None, opts)
        scope, postgres = args.scope, args.postgres
        self.match = match = selector(scope, NAME, name)
        child = pulumi.ResourceOptions(parent=self)
        object_labels = labels(scope, NAME, name)
        secret = core.Secret(
            f"{name}-auth",
            metadata=metadata(scope, f"{name}-auth", object_labels),
            type="Opaque",
            string_data={PASSWORD: args.password},
            opts=child,
        )
        self.secret = name_of(secret.metadata, f"{name}-auth")
        if postgres.tls:
            names = pulumi.Output.from_input(scope.namespace).apply(lambda namespace: certificate_names(postgres, namespace))
            Certificate(f"{name}-tls", CertificateArgs(scope, postgres.tls, names, object_labels), child)
        files = {**scripts.texts("alive.sh", "prepare.sh", "roles.sql"), "pg_hba.conf": client_rules(postgres)}
        config = core.ConfigMap(
            f"{name}-config", metadata=metadata(scope, f"{name}-config", object_labels), data=files, opts=child
        )
        account = service_account(name, scope, object_labels, child)
        core.Service(
            name,
            metadata=metadata(scope, name, object_labels),
            spec=core.ServiceSpecArgs(
                selector=match,
                ports=[core.ServicePortArgs(name="postgres", port=postgres.port, target_port="postgres")],
            ),
            opts=child,
        )
        mounts = [
            core.VolumeMountArgs(name="data", mount_path=DATA),
            core.VolumeMountArgs(name="config", mount_path=SCRIPTS, read_only=True),
            core.VolumeMountArgs(name="sockets", mount_path=SOCKETS),
            core.VolumeMountArgs(name="shm", mount_path="/dev/shm"),  # noqa: S108 a volume of the pod's own
            core.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 a volume of the pod's own
            *server_mounts(postgres.tls, TLS),
        ]
        ready = ["pg_isready", "--host=localhost", f"--port={postgres.port}", "--timeout=3"]
        renewal = [TLS, "/tmp/certificate"] if postgres.tls else []  # noqa: S108 in a volume of the pod's own
        alive = ["sh", f"{SCRIPTS}/alive.sh", str(postgres.port), *renewal]
        common = environment({"PGDATA": f"{DATA}/pgdata", "PGHOST": SOCKETS})
        prepare = core.ContainerArgs(
            name="prepare",
            image=args.images.postgres,
            image_pull_policy=args.images.pull_policy,
            command=["sh", f"{SCRIPTS}/prepare.sh"],
            env=[
                *common,
                *environment(
                    {
                        "SCRIPTS": SCRIPTS,
                        "METADATA_USER": postgres.user,
                        "METADATA_DATABASE": postgres.database,
                    }
                ),
                secret_variable("METADATA_PASSWORD", self.secret, PASSWORD),
            ],
            resources=container_resources(postgres.resources),
            security_context=container_security(),
            volume_mounts=mounts,
        )
        server = core.ContainerArgs(
            name="postgres",
            image=args.images.postgres,
            image_pull_policy=args.images.pull_policy,
            command=server_arguments(postgres),
            env=common,
            ports=[core.ContainerPortArgs(name="postgres", container_port=postgres.port)],
            resources=container_resources(postgres.resources),
            security_context=container_security(),
            # Recovery after a crash answers "rejecting connections" for as long as it takes, also later: a server whose child was
            # killed recovers without a new start.
            startup_probe=exec_probe(ready, period=2, failures=900),
            readiness_probe=exec_probe(ready, period=5, failures=3),
            liveness_probe=exec_probe(alive, period=10, failures=6),
            volume_mounts=mounts,
        )
        apps.StatefulSet(
            name,
            metadata=metadata(scope, name, object_labels),
            spec=apps.StatefulSetSpecArgs(
                service_name=name,
                replicas=1,
                selector=meta.LabelSelectorArgs(match_labels=match),
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(
                        labels=server_labels(scope, NAME, name),
                        annotations={
                            f"{PREFIX}/config": content_hash(files)[:32],
                            f"{PREFIX}/secret": fingerprint({PASSWORD: args.password}),
                        },
                    ),
                    spec=core.PodSpecArgs(
                        service_account_name=account,
                        automount_service_account_token=False,
                        enable_service_links=False,
                        security_context=pod_security(user_of(postgres, args.images)),
                        # The images stop the server by SIGINT: clients are cut off, and a last checkpoint is written.
                        termination_grace_period_seconds=120,
                        init_containers=[prepare],
                        containers=[server],
                        volumes=[
                            core.VolumeArgs(
                                name="config", config_map=core.ConfigMapVolumeSourceArgs(name=config.metadata.name)
                            ),
                            scratch("sockets", "16Mi"),
                            scratch("shm", "256Mi", in_memory=True),
                            scratch("tmp", "1Gi"),
                            *server_volumes(postgres.tls),
                        ],
                    ),
                ),
                volume_claim_templates=[volume_claim("data", scope, postgres.volume_bytes, match)],
            ),
            opts=child,
        )
        self.register_outputs({"secret": self.secret})
