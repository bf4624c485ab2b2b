"""The Sentinels of a Redis instance: they notice that the primary is gone, promote a replica, and tell clients."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components import redis
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
    service_account,
    spread,
)
from topology import redis_acl
from topology.model import SENTINEL_PORT, RedisInstance
from topology.settings.images import Images
from topology.settings.resources import Resources

NAME = "redis-sentinel"
#: A Sentinel holds a few connections and no data.
RESOURCES = Resources(
    cpu_request_millis=50, cpu_limit_millis=200, memory_request_bytes=64 * 2**20, memory_limit_bytes=128 * 2**20
)
#: Milliseconds without an answer after which a server is taken for gone; and in which a failover has to be done, after which a
#: replica of another server than the primary is put right, and twice of which lie between two tries.
DOWN_AFTER = 5_000
FAILOVER_TIMEOUT = 10_000
#: Tries, a second or more each, to see every replica at the primary before a Sentinel starts.
ATTACH_TRIES = 30

#: Writes a Sentinel's first configuration. Sentinels keep nothing that they cannot find again: who is primary they learn
#: from each other, or else from the servers, so that they need no volume.
#:
#: Of replicas a Sentinel hears from the primary when it starts, and then every ten seconds. One that attaches in between would
#: be left out of a failover in that time: it would go on waiting for the old primary, and the new one, without a replica, take
#: no writes (measured). So the first question has to find them all, unless one stays away.
WATCH = f"""\
set -eu
me=$POD_NAME.$NAME-sentinel-nodes.$NAMESPACE.svc
config=$DATA/sentinel.conf
. "$CONFIG/find-primary.sh"
tries=0
while :; do
  primary=$(primary_by_sentinels)
  [ -n "$primary" ] || primary=$(primary_by_servers)
  if [ -n "$primary" ]; then
    attached=$(ask "$primary" "$PORT" info replication | grep -c state=online || true)
    [ "$attached" -lt $((SERVERS - 1)) ] && [ "$tries" -lt {ATTACH_TRIES} ] || break
    tries=$((tries + 1))
  fi
  sleep 1
done
umask 077
cat >"$config" <<END
$(cat "$CONFIG/listen.conf")
dir $DATA
protected-mode no
aclfile $AUTH/{redis.SENTINEL_ACL}
sentinel sentinel-user {redis_acl.OPERATOR}
sentinel sentinel-pass $REDISCLI_AUTH
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $me
sentinel announce-port $SENTINEL_PORT
sentinel monitor $NAME $primary $PORT $((SENTINELS / 2 + 1))
sentinel auth-user $NAME {redis_acl.OPERATOR}
sentinel auth-pass $NAME $REDISCLI_AUTH
sentinel down-after-milliseconds $NAME {DOWN_AFTER}
sentinel failover-timeout $NAME {FAILOVER_TIMEOUT}
sentinel parallel-syncs $NAME 1
END
echo "$me: the primary is $primary"
"""


def scripts(instance: RedisInstance) -> dict[str, str]:
    """Files of the ConfigMap that the Sentinels' pods mount."""
    return {
        "find-primary.sh": redis.FIND_PRIMARY,
        "listen.conf": "\n".join(redis.listen(instance, SENTINEL_PORT)) + "\n",
        "watch.sh": WATCH,
        **({"renew.sh": redis.RENEW} if instance.tls else {}),
    }


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
        files = scripts(args.instance)
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
                replicas=redis.SENTINELS,
                pod_management_policy="Parallel",
                selector=meta.LabelSelectorArgs(match_labels=self.match),
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(
                        labels=object_labels,
                        annotations={
                            f"{PREFIX}/config": content_hash({**files, **redis.rules(args.instance)})[:32],
                            f"{PREFIX}/secret": args.fingerprint,
                        },
                    ),
                    spec=core.PodSpecArgs(
                        service_account_name=account,
                        automount_service_account_token=False,
                        enable_service_links=False,
                        security_context=pod_security(redis.USER),
                        topology_spread_constraints=spread(self.match),
                        init_containers=[_watch(args)],
                        containers=[_sentinel(args)],
                        volumes=[
                            core.VolumeArgs(
                                name="config",
                                config_map=core.ConfigMapVolumeSourceArgs(name=name_of(config.metadata, f"{name}-config")),
                            ),
                            redis.acl_volume(args.secret, redis.SENTINEL_ACL),
                            *redis.tls_volumes(args.instance),
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


def _mounts(instance: RedisInstance) -> list[core.VolumeMountArgs]:
    return [
        *redis.tls_mounts(instance),
        core.VolumeMountArgs(name="data", mount_path=redis.DATA),
        core.VolumeMountArgs(name="config", mount_path=redis.CONFIG, read_only=True),
        core.VolumeMountArgs(name="auth", mount_path=redis.AUTH, read_only=True),
    ]


def _watch(args: SentinelArgs) -> core.ContainerArgs:
    return core.ContainerArgs(
        name="watch",
        image=args.images.redis,
        image_pull_policy=args.images.pull_policy,
        command=["sh", f"{redis.CONFIG}/watch.sh"],
        env=[
            *redis.role_environment(args.instance),
            secret_variable("REDISCLI_AUTH", args.secret, redis.OPERATOR_PASSWORD),
        ],
        resources=container_resources(RESOURCES),
        security_context=container_security(),
        volume_mounts=_mounts(args.instance),
    )


def _sentinel(args: SentinelArgs) -> core.ContainerArgs:
    # A lost quorum is not a reason to be unready: clients must still learn who is primary.
    instance = args.instance
    ping = ["redis-cli", *redis.cli_options(instance), "--user", redis_acl.OPERATOR, "-e", "-p", str(SENTINEL_PORT), "ping"]
    renew = ["sh", f"{redis.CONFIG}/renew.sh", str(SENTINEL_PORT), f"{redis.DATA}/certificate", "sentinel"]
    return core.ContainerArgs(
        name="sentinel",
        image=args.images.redis,
        image_pull_policy=args.images.pull_policy,
        command=["redis-server", f"{redis.DATA}/sentinel.conf", "--sentinel"],
        env=[
            *(redis.role_environment(instance) if instance.tls else []),
            secret_variable("REDISCLI_AUTH", args.secret, redis.OPERATOR_PASSWORD),
        ],
        ports=[core.ContainerPortArgs(name="sentinel", container_port=SENTINEL_PORT)],
        resources=container_resources(RESOURCES),
        security_context=container_security(),
        startup_probe=exec_probe(ping, period=2, failures=30),
        readiness_probe=exec_probe(ping, period=5, failures=2),
        liveness_probe=exec_probe(renew if instance.tls else ping, period=10, failures=3),
        volume_mounts=_mounts(args.instance),
    )
