"""A Redis (or Valkey) server with its replicas: a StatefulSet, its Services, roles and lifecycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.certificate import Certificate, CertificateArgs, server_volumes, service_names
from components.common import (
    PREFIX,
    Scope,
    container_resources,
    container_security,
    content_hash,
    disruption_budget,
    exec_probe,
    labels,
    metadata,
    name_of,
    pod_security,
    scratch,
    secret_variable,
    selector,
    server_labels,
    service_account,
    spread,
    volume_claim,
)
from components.redis_files import (
    CONFIG,
    DATA,
    SERVER_ACL,
    START,
    acl_rules,
    acl_volume,
    cli_options,
    mounts,
    script_environment,
    server_files,
)
from components.redis_users import OPERATOR_PASSWORD, users_secret
from topology import redis_acl
from topology.model import SENTINEL_SUFFIX, RedisInstance, RedisRole
from topology.quantities import format_memory
from topology.settings.images import Images

NAME = "redis"
#: The user of the official Debian images; the volumes belong to its group.
USER = 999


@dataclass(frozen=True)
class RedisArgs:
    """What one Redis instance needs."""

    scope: Scope
    instance: RedisInstance
    images: Images
    #: Password of each of its users.
    passwords: Mapping[RedisRole, pulumi.Input[str]]


class Redis(pulumi.ComponentResource):
    """One Redis instance: a StatefulSet of a primary and its replicas, with volumes, configuration and users.

    Passwords are in no argument and no ConfigMap: a server has them from files of the Secret, probes and scripts the
    operator's from a variable.
    Clients reach the primary by the Service of the instance's name; where Sentinel moves the primary, by asking Sentinel.
    """

    #: Labels of its pods, for network policies.
    match: dict[str, str]
    #: The Secret with the passwords of all users, and a digest of them.
    secret: pulumi.Output[str]
    fingerprint: pulumi.Output[str]

    def __init__(self, name: str, args: RedisArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:redis:Redis", name, None, opts)
        instance, scope = args.instance, args.scope
        child = pulumi.ResourceOptions(parent=self)
        self._args = args
        self._labels = labels(scope, NAME, name)
        self.match = selector(scope, NAME, name)
        self.secret, self.fingerprint = users_secret(name, scope, self._labels, instance, given=args.passwords, opts=child)
        if instance.tls:
            names = pulumi.Output.from_input(scope.namespace).apply(lambda namespace: certificate_names(instance, namespace))
            Certificate(f"{name}-tls", CertificateArgs(scope, instance.tls, names, self._labels), child)
        files = server_files(instance)
        config = core.ConfigMap(
            f"{name}-config",
            metadata=metadata(scope, f"{name}-config", self._labels),
            data=files,
            opts=child,
        )
        self._services(name, child)
        account = service_account(name, scope, self._labels, child)
        persistent = instance.persistence != "none"
        apps.StatefulSet(
            name,
            metadata=metadata(scope, name, self._labels),
            spec=apps.StatefulSetSpecArgs(
                service_name=f"{name}-nodes",
                replicas=instance.replicas + 1,
                # One by one would never start where the primary is not the first.
                pod_management_policy="Parallel",
                selector=meta.LabelSelectorArgs(match_labels=self.match),
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(
                        labels=server_labels(scope, NAME, name),
                        annotations={
                            f"{PREFIX}/config": content_hash({**files, **acl_rules(instance)})[:32],
                            f"{PREFIX}/secret": self.fingerprint,
                        },
                    ),
                    spec=core.PodSpecArgs(
                        service_account_name=account,
                        automount_service_account_token=False,
                        enable_service_links=False,
                        security_context=pod_security(USER),
                        # Long enough to hand over, and to write maxmemory to a slow disk.
                        termination_grace_period_seconds=150,
                        topology_spread_constraints=spread(self.match) if instance.replicas else None,
                        init_containers=[self._join()] if instance.replicas else None,
                        containers=[self._server()],
                        volumes=[
                            core.VolumeArgs(
                                name="config",
                                config_map=core.ConfigMapVolumeSourceArgs(name=name_of(config.metadata, f"{name}-config")),
                            ),
                            acl_volume(self.secret, SERVER_ACL),
                            *server_volumes(instance.tls),
                            scratch("tmp", "64Mi"),
                            *([] if persistent else [scratch("data", format_memory(instance.volume_bytes))]),
                        ],
                    ),
                ),
                volume_claim_templates=[volume_claim("data", scope, instance.volume_bytes, self.match)]
                if persistent
                else None,
            ),
            opts=child,
        )
        if instance.replicas:
            disruption_budget(name, scope, self.match, self._labels, child)
        self.register_outputs({"secret": self.secret})

    def _services(self, name: str, opts: pulumi.ResourceOptions) -> None:
        instance, scope = self._args.instance, self._args.scope
        port = core.ServicePortArgs(name="redis", port=instance.port, target_port="redis")
        core.Service(
            f"{name}-nodes",
            metadata=metadata(scope, f"{name}-nodes", self._labels),
            spec=core.ServiceSpecArgs(
                cluster_ip="None", publish_not_ready_addresses=True, selector=self.match, ports=[port]
            ),
            opts=opts,
        )
        if instance.sentinel:
            return
        primary = {"apps.kubernetes.io/pod-index": "0"} if instance.replicas else {}
        core.Service(
            name,
            metadata=metadata(scope, name, self._labels),
            spec=core.ServiceSpecArgs(selector={**self.match, **primary}, ports=[port]),
            opts=opts,
        )

    def _mounts(self) -> list[core.VolumeMountArgs]:
        tmp = core.VolumeMountArgs(name="tmp", mount_path="/tmp")  # noqa: S108 a volume of the pod's own
        return [*mounts(self._args.instance), tmp]

    def _join(self) -> core.ContainerArgs:
        return core.ContainerArgs(
            name="join",
            image=self._args.images.redis,
            image_pull_policy=self._args.images.pull_policy,
            command=["sh", f"{CONFIG}/join.sh"],
            env=[
                *script_environment(self._args.instance),
                secret_variable("REDISCLI_AUTH", self.secret, OPERATOR_PASSWORD),
            ],
            resources=container_resources(self._args.instance.resources),
            security_context=container_security(),
            volume_mounts=self._mounts(),
        )

    def _server(self) -> core.ContainerArgs:
        instance = self._args.instance
        # Any reply is a sign of life, an error too: a server that cannot save (MISCONF), loads (LOADING) or asks for another
        # password (NOAUTH) gets no better by being killed.
        ping = ["redis-cli", *cli_options(instance), "--user", redis_acl.OPERATOR, "-p", str(instance.port), "ping"]
        alive = ["sh", f"{CONFIG}/renew.sh", str(instance.port), "/tmp/certificate", "server"] if instance.tls else ping  # noqa: S108
        hand_over = core.LifecycleArgs(
            pre_stop=core.LifecycleHandlerArgs(exec_=core.ExecActionArgs(command=["sh", f"{CONFIG}/hand-over.sh"]))
        )
        return core.ContainerArgs(
            name="redis",
            image=self._args.images.redis,
            image_pull_policy=self._args.images.pull_policy,
            command=[
                "sh",
                f"{CONFIG}/{START}",
                DATA,
                f"{CONFIG}/redis.conf",
                "redis-server",
                f"{DATA}/node.conf" if instance.replicas else f"{CONFIG}/redis.conf",
            ],
            env=[
                *script_environment(self._args.instance),
                secret_variable("REDISCLI_AUTH", self.secret, OPERATOR_PASSWORD),
            ],
            ports=[core.ContainerPortArgs(name="redis", container_port=instance.port)],
            resources=container_resources(instance.resources),
            security_context=container_security(),
            # Half an hour for a change of persistence, which happens before the server answers; killing it in the middle would
            # never end.
            startup_probe=exec_probe(ping, period=2, failures=900),
            readiness_probe=exec_probe(["sh", f"{CONFIG}/ready.sh"], period=5, failures=2),
            liveness_probe=exec_probe(alive, period=10, failures=6),
            lifecycle=hand_over if instance.sentinel else None,
            volume_mounts=self._mounts(),
        )


def certificate_names(instance: RedisInstance, namespace: str) -> list[str]:
    """DNS names that the certificate of an instance must have, wherever clients ask for it from."""

    names = [instance.name, *([sentinel_name(instance)] if instance.sentinel else [])]
    return [name for service in names for name in service_names(service, namespace, pods=True)]


def sentinel_name(instance: RedisInstance) -> str:
    """Name of the instance's Sentinels and of their Service: where clients ask for the primary."""
    return f"{instance.name}{SENTINEL_SUFFIX}"
