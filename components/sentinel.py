"""The Sentinels of a Redis instance: they notice that the primary is gone, promote a replica, and tell clients."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.certificate import server_volumes
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
)
from components.redis import USER
from components.redis_files import (
    CONFIG,
    DATA,
    SENTINEL_ACL,
    SENTINELS,
    acl_rules,
    acl_volume,
    cli_options,
    mounts,
    script_environment,
    sentinel_files,
)
from components.redis_users import OPERATOR_PASSWORD
from topology import redis_acl
from topology.model import SENTINEL_PORT, RedisInstance
from topology.settings.images import Images
from topology.settings.resources import Resources

NAME = "redis-sentinel"
#: A Sentinel holds a few connections and no data.
RESOURCES = Resources(
    cpu_request_millis=50, cpu_limit_millis=200, memory_request_bytes=64 * 2**20, memory_limit_bytes=128 * 2**20
)


@dataclass(frozen=True)
class SentinelArgs:
    """What the Sentinels of one instance need."""

    scope: Scope
    instance: RedisInstance
    images: Images
    #: The instance's Secret, and its digest.
    secret: pulumi.Output[str]
    fingerprint: pulumi.Output[str]


class Sentinel(pulumi.ComponentResource):
    """Three Sentinels on different nodes, and the Service at which clients ask them."""

    #: Name of the Service.
    service: pulumi.Output[str]
    #: Labels of the pods, for network policies.
    match: dict[str, str]

    def __init__(self, name: str, args: SentinelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:sentinel:Sentinel", name, None, opts)
        scope = args.scope
        child = pulumi.ResourceOptions(parent=self)
        self.match = selector(scope, NAME, name)
        object_labels = labels(scope, NAME, name)
        files = sentinel_files(args.instance)
        config = core.ConfigMap(
            f"{name}-config", metadata=metadata(scope, f"{name}-config", object_labels), data=files, opts=child
        )
        port = core.ServicePortArgs(name="sentinel", port=SENTINEL_PORT, target_port="sentinel")
        core.Service(
            f"{name}-nodes",
            metadata=metadata(scope, f"{name}-nodes", object_labels),
            spec=core.ServiceSpecArgs(
                cluster_ip="None", publish_not_ready_addresses=True, selector=self.match, ports=[port]
            ),
            opts=child,
        )
        service = core.Service(
            name,
            metadata=metadata(scope, name, object_labels),
            spec=core.ServiceSpecArgs(selector=self.match, ports=[port]),
            opts=child,
        )
        account = service_account(name, scope, object_labels, child)
        apps.StatefulSet(
            name,
            metadata=metadata(scope, name, object_labels),
            spec=apps.StatefulSetSpecArgs(
                service_name=f"{name}-nodes",
                replicas=SENTINELS,
                pod_management_policy="Parallel",
                selector=meta.LabelSelectorArgs(match_labels=self.match),
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(
                        labels=server_labels(scope, NAME, name),
                        annotations={
                            f"{PREFIX}/config": content_hash({**files, **acl_rules(args.instance)})[:32],
                            f"{PREFIX}/secret": args.fingerprint,
                        },
                    ),
                    spec=core.PodSpecArgs(
                        service_account_name=account,
                        automount_service_account_token=False,
                        enable_service_links=False,
                        security_context=pod_security(USER),
                        topology_spread_constraints=spread(self.match),
                        init_containers=[_watch(args)],
                        containers=[_sentinel(args)],
                        volumes=[
                            core.VolumeArgs(
                                name="config",
                                config_map=core.ConfigMapVolumeSourceArgs(name=name_of(config.metadata, f"{name}-config")),
                            ),
                            acl_volume(args.secret, SENTINEL_ACL),
                            *server_volumes(args.instance.tls),
                            scratch("data", "16Mi"),
                        ],
                    ),
                ),
            ),
            opts=child,
        )
        disruption_budget(name, scope, self.match, object_labels, child)
        self.service = name_of(service.metadata, name)
        self.register_outputs({"service": self.service})


def _watch(args: SentinelArgs) -> core.ContainerArgs:
    return core.ContainerArgs(
        name="watch",
        image=args.images.redis,
        image_pull_policy=args.images.pull_policy,
        command=["sh", f"{CONFIG}/watch.sh"],
        env=[
            *script_environment(args.instance),
            secret_variable("REDISCLI_AUTH", args.secret, OPERATOR_PASSWORD),
        ],
        resources=container_resources(RESOURCES),
        security_context=container_security(),
        volume_mounts=mounts(args.instance),
    )


def _sentinel(args: SentinelArgs) -> core.ContainerArgs:
    # A lost quorum is not a reason to be unready: clients must still learn who is primary. Any reply is a sign of life.
    instance = args.instance
    ping = ["redis-cli", *cli_options(instance), "--user", redis_acl.OPERATOR, "-p", str(SENTINEL_PORT), "ping"]
    renew = ["sh", f"{CONFIG}/renew.sh", str(SENTINEL_PORT), f"{DATA}/certificate", "sentinel"]
    return core.ContainerArgs(
        name="sentinel",
        image=args.images.redis,
        image_pull_policy=args.images.pull_policy,
        command=["redis-server", f"{DATA}/sentinel.conf", "--sentinel"],
        env=[
            *(script_environment(instance) if instance.tls else []),
            secret_variable("REDISCLI_AUTH", args.secret, OPERATOR_PASSWORD),
        ],
        ports=[core.ContainerPortArgs(name="sentinel", container_port=SENTINEL_PORT)],
        resources=container_resources(RESOURCES),
        security_context=container_security(),
        startup_probe=exec_probe(ping, period=2, failures=30),
        readiness_probe=exec_probe(ping, period=5, failures=2),
        liveness_probe=exec_probe(renew if instance.tls else ping, period=10, failures=3),
        volume_mounts=mounts(args.instance),
    )
