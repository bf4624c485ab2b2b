"""A Redis (or Valkey) server: configuration, access control, storage and lifecycle."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_random as random
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.common import (
    PREFIX,
    Scope,
    container_resources,
    container_security,
    content_hash,
    exec_probe,
    fingerprint,
    labels,
    metadata,
    name_of,
    pod_security,
    scratch,
    selector,
    service_account,
)
from infra.quantities import format_memory
from runtime.model import Images, RedisInstance

NAME = "redis"
DATA = "/data"
CONFIG = "/etc/redis"
AUTH = "/etc/redis-auth"
#: The `redis` user of the official images (Debian's; the volumes belong to this group whatever the image says).
USER = 999
#: Clients, exporters and scalers use the default user; `operator` is for people and for replication.
OPERATOR = "operator"
_PASSWORD_KEY = "password"  # noqa: S105 the key of a Secret
_OPERATOR_KEY = "operator-password"
_ACL_KEY = "users.acl"


def server_config(instance: RedisInstance) -> str:
    """The server's configuration file, without any secret: users and passwords are in the file that `aclfile` names."""
    lines = [
        f"port {instance.port}",
        # The ACL file asks every client for a password, which is what protected mode stands in for.
        "protected-mode no",
        f"dir {DATA}",
        f"aclfile {AUTH}/{_ACL_KEY}",
        f"maxmemory {instance.maxmemory_bytes}",
        f"maxmemory-policy {instance.maxmemory_policy}",
        "tcp-keepalive 60",
        *_persistence(instance),
    ]
    return "\n".join(lines) + "\n"


def _persistence(instance: RedisInstance) -> list[str]:
    if instance.persistence == "none":
        return ["appendonly no", 'save ""', "shutdown-on-sigterm nosave"]
    # A snapshot after 15 minutes with one change, or 5 with a hundred; SIGTERM writes one more, so that a restart of the pod
    # loses nothing even without the append-only file.
    snapshots = ["save 900 1 300 100", "shutdown-on-sigterm save"]
    if instance.persistence == "rdb":
        return ["appendonly no", *snapshots]
    return ["appendonly yes", "appendfsync everysec", "aof-use-rdb-preamble yes", *snapshots]


def acl_file(client_password: str, operator_password: str) -> str:
    """Who may do what: clients everything but administration, the operator everything.

    Clients need INFO; the rest of `@dangerous` (KEYS, FLUSHALL, CONFIG, DEBUG, REPLICAOF …) can stall or empty the broker.
    """
    return (
        f"user default on >{client_password} ~* &* +@all -@admin -@dangerous +info\n"
        f"user {OPERATOR} on >{operator_password} ~* &* +@all\n"
    )


@dataclass(frozen=True)
class RedisArgs:
    """What one Redis server needs."""

    scope: Scope
    instance: RedisInstance
    images: Images
    #: Password of the default user, which Superset's processes use.
    password: pulumi.Input[str]


class Redis(pulumi.ComponentResource):
    """One Redis server: a StatefulSet with its volume, Service, configuration and users.

    The password is in no argument and no ConfigMap: the server has it from a file of the Secret, probes from a variable.
    """

    #: Host name of the server inside the cluster.
    host: pulumi.Output[str]
    #: Labels of its pods, for network policies.
    match: dict[str, str]

    def __init__(self, name: str, args: RedisArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:redis:Redis", name, None, opts)
        instance, scope = args.instance, args.scope
        child = pulumi.ResourceOptions(parent=self)
        self.match = selector(scope, NAME, name)
        self._labels = labels(scope, NAME, name)

        operator = random.RandomPassword(f"{name}-operator", length=32, special=False, opts=child)
        passwords = {_PASSWORD_KEY: pulumi.Output.from_input(args.password), _OPERATOR_KEY: operator.result}
        secret = core.Secret(
            f"{name}-auth",
            metadata=metadata(scope, f"{name}-auth", self._labels),
            type="Opaque",
            string_data={
                **passwords,
                _ACL_KEY: pulumi.Output.all(**passwords).apply(
                    lambda plain: acl_file(plain[_PASSWORD_KEY], plain[_OPERATOR_KEY])
                ),
            },
            opts=child,
        )
        config = core.ConfigMap(
            f"{name}-config",
            metadata=metadata(scope, f"{name}-config", self._labels),
            data={"redis.conf": server_config(instance)},
            opts=child,
        )
        account = service_account(name, scope, self._labels, child)
        service = core.Service(
            name,
            metadata=metadata(scope, name, self._labels),
            spec=core.ServiceSpecArgs(
                selector=self.match,
                ports=[core.ServicePortArgs(name="redis", port=instance.port, target_port="redis")],
            ),
            opts=child,
        )
        core.Service(
            f"{name}-nodes",
            metadata=metadata(scope, f"{name}-nodes", self._labels),
            spec=core.ServiceSpecArgs(
                cluster_ip="None",
                publish_not_ready_addresses=True,
                selector=self.match,
                ports=[core.ServicePortArgs(name="redis", port=instance.port, target_port="redis")],
            ),
            opts=child,
        )
        persistent = instance.persistence != "none"
        apps.StatefulSet(
            name,
            metadata=metadata(scope, name, self._labels),
            spec=apps.StatefulSetSpecArgs(
                service_name=f"{name}-nodes",
                replicas=1,
                selector=meta.LabelSelectorArgs(match_labels=self.match),
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(
                        labels=self._labels,
                        annotations={
                            f"{PREFIX}/config": content_hash(server_config(instance))[:32],
                            f"{PREFIX}/secret": fingerprint(passwords),
                        },
                    ),
                    spec=core.PodSpecArgs(
                        service_account_name=account,
                        automount_service_account_token=False,
                        enable_service_links=False,
                        security_context=pod_security(USER),
                        # Long enough to write maxmemory to a slow disk.
                        termination_grace_period_seconds=120,
                        containers=[self._container(args, name_of(secret.metadata, f"{name}-auth"))],
                        volumes=[
                            core.VolumeArgs(
                                name="config", config_map=core.ConfigMapVolumeSourceArgs(name=config.metadata.name)
                            ),
                            core.VolumeArgs(
                                name="auth",
                                secret=core.SecretVolumeSourceArgs(
                                    secret_name=name_of(secret.metadata, f"{name}-auth"),
                                    items=[core.KeyToPathArgs(key=_ACL_KEY, path=_ACL_KEY)],
                                    default_mode=0o440,
                                ),
                            ),
                            scratch("tmp", "64Mi"),
                            *([] if persistent else [scratch("data", format_memory(instance.volume_bytes))]),
                        ],
                    ),
                ),
                volume_claim_templates=[volume_claim("data", instance.volume_bytes, self.match)] if persistent else None,
            ),
            opts=child,
        )
        self.host = name_of(service.metadata, name)
        self.register_outputs({"host": self.host})

    def _container(self, args: RedisArgs, secret: pulumi.Output[str]) -> core.ContainerArgs:
        instance = args.instance
        # `-e` makes an error reply (still loading, wrong password) a failure.
        ping = ["redis-cli", "-e", "-p", str(instance.port), "ping"]
        return core.ContainerArgs(
            name="redis",
            image=args.images.redis,
            image_pull_policy=args.images.pull_policy,
            command=["redis-server", f"{CONFIG}/redis.conf"],
            env=[
                core.EnvVarArgs(
                    name="REDISCLI_AUTH",
                    value_from=core.EnvVarSourceArgs(
                        secret_key_ref=core.SecretKeySelectorArgs(name=secret, key=_PASSWORD_KEY)
                    ),
                )
            ],
            ports=[core.ContainerPortArgs(name="redis", container_port=instance.port)],
            resources=container_resources(instance.resources),
            security_context=container_security(),
            # Loading a full append-only file takes minutes; killing the server in the middle would never end.
            startup_probe=exec_probe(ping, period=2, failures=300),
            readiness_probe=exec_probe(ping, period=5, failures=2),
            liveness_probe=exec_probe(ping, period=10, failures=6),
            volume_mounts=[
                core.VolumeMountArgs(name="data", mount_path=DATA),
                core.VolumeMountArgs(name="config", mount_path=CONFIG, read_only=True),
                core.VolumeMountArgs(name="auth", mount_path=AUTH, read_only=True),
                core.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 a volume of the pod's own
            ],
        )


def volume_claim(name: str, size: int, claim_labels: dict[str, str]) -> core.PersistentVolumeClaimArgs:
    """A claim template of `size` bytes that one pod writes."""
    return core.PersistentVolumeClaimArgs(
        api_version="v1",
        kind="PersistentVolumeClaim",
        metadata=meta.ObjectMetaArgs(name=name, labels=claim_labels),
        spec=core.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            resources=core.VolumeResourceRequirementsArgs(requests={"storage": format_memory(size)}),
        ),
    )
