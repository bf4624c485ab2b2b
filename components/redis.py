"""A Redis (or Valkey) server with its replicas: configuration, access control, storage, roles and lifecycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    disruption_budget,
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
    service_account,
    spread,
)
from components.redis_access import AUTHORITY
from topology import redis_acl
from topology.model import SENTINEL_PORT, SENTINEL_SUFFIX, RedisInstance, RedisRole
from topology.quantities import format_memory
from topology.settings.images import Images

NAME = "redis"
DATA = "/data"
CONFIG = "/etc/redis"
AUTH = "/etc/redis-auth"
TLS = "/etc/redis-tls"
#: The user of the official Debian images; the volumes belong to its group.
USER = 999
#: Keys of the Secret; each user's password is at the key that `password_key` names.
OPERATOR_PASSWORD = "operator-password"  # noqa: S105
ACL = "users.acl"
SENTINEL_ACL = "sentinel.acl"
#: Sentinels of an instance: one may be lost, and two agree that a server is gone.
SENTINELS = 3

#: Functions for the scripts of servers and Sentinels: who is the primary, by its name, or nothing where nobody knows.
FIND_PRIMARY = """\
ask() {
  host=$1 port=$2
  shift 2
  timeout 3 redis-cli ${CLI_TLS-} --user operator --raw -h "$host" -p "$port" "$@" 2>/dev/null || true
}
primary_by_sentinels() {
  i=0
  while [ "$i" -lt "$SENTINELS" ]; do
    sentinel=$NAME-sentinel-$i.$NAME-sentinel-nodes.$NAMESPACE.svc
    found=$(ask "$sentinel" "$SENTINEL_PORT" sentinel get-master-addr-by-name "$NAME" | head -n 1)
    case $found in
      "$NAME"-*."$NAME-nodes.$NAMESPACE.svc") echo "$found"; return ;;
    esac
    i=$((i + 1))
  done
}
primary_by_servers() {
  i=0
  while [ "$i" -lt "$SERVERS" ]; do
    host=$NAME-$i.$NAME-nodes.$NAMESPACE.svc
    if [ "$host" != "$me" ] && ask "$host" "$PORT" info replication | grep -q '^role:master'; then
      echo "$host"
      return
    fi
    i=$((i + 1))
  done
}
"""

#: Decides, when a pod starts, whether its server is the primary or whose replica it is, and writes that down. Sentinel
#: changes the file when it changes the roles, so that a container which only restarts keeps its role.
JOIN = """\
set -eu
me=$POD_NAME.$NAME-nodes.$NAMESPACE.svc
config=$DATA/node.conf
. "$CONFIG/find-primary.sh"
first=$NAME-0.$NAME-nodes.$NAMESPACE.svc
primary=
if [ "$SENTINELS" -gt 0 ]; then
  tries=0
  while :; do
    primary=$(primary_by_sentinels)
    [ -n "$primary" ] || primary=$(primary_by_servers)
    # Without data this server must not come back as the primary, or the others would copy its emptiness: another one
    # takes over in a moment.
    if [ "$primary" = "$me" ] && [ ! -s "$config" ] && [ "$tries" -lt 120 ]; then
      tries=$((tries + 1))
      sleep 1
    else
      break
    fi
  done
  if [ -z "$primary" ] && [ -s "$config" ]; then
    primary=$(sed -n 's/^replicaof \\([^ ]*\\) .*/\\1/p' "$config" | tail -n 1)
    [ -n "$primary" ] || primary=$me
  fi
fi
[ -n "$primary" ] || primary=$first
umask 077
{
  echo "include $CONFIG/redis.conf"
  echo "masteruser operator"
  echo "masterauth $REDISCLI_AUTH"
  echo "replica-announce-ip $me"
  echo "replica-announce-port $PORT"
  [ "$primary" = "$me" ] || echo "replicaof $primary $PORT"
} >"$config.new"
mv "$config.new" "$config"
echo "$me: the primary is $primary"
"""

#: Before a primary stops, a replica takes over: clients notice nothing but a reconnect.
HAND_OVER = """\
is_primary() { redis-cli ${CLI_TLS-} --user operator -p "$PORT" info replication | grep -q '^role:master'; }
tries=0
answer=
while is_primary && [ "$tries" -lt 60 ]; do
  # Refused while an earlier failover is still ending, or while no replica is fit: asked again.
  [ "$answer" = OK ] ||
    answer=$(redis-cli ${CLI_TLS-} --user operator -h "$NAME-sentinel" -p "$SENTINEL_PORT" sentinel failover "$NAME")
  tries=$((tries + 1))
  sleep 1
done
exit 0
"""

#: A replica is ready when it has the primary's data: only then may the next pod be replaced or drained.
IN_SYNC = (
    'redis-cli ${CLI_TLS-} --user operator -e -p "$PORT" ping >/dev/null '
    '&& ! redis-cli ${CLI_TLS-} --user operator -p "$PORT" info replication | grep -q master_link_status:down'
)


#: After a renewal a server takes its new certificate, which it reads only when it is told to. A Sentinel cannot be told: it
#: stops, and starts anew with what it knows.
RENEW = """\
set -eu
redis-cli $CLI_TLS --user operator -e -p "$1" ping >/dev/null
now=$(cat "$TLS/tls.crt" "$TLS/tls.key" "$TLS/ca.crt" | cksum)
[ -e "$2" ] || echo "$now" >"$2"
[ "$now" = "$(cat "$2")" ] && exit 0
if [ "$3" = sentinel ]; then
  echo "$now" >"$2"
  redis-cli $CLI_TLS --user operator -p "$1" shutdown || true
else
  redis-cli $CLI_TLS --user operator -e -p "$1" config set \
    tls-cert-file "$TLS/tls.crt" tls-key-file "$TLS/tls.key" tls-ca-cert-file "$TLS/ca.crt" >/dev/null
  echo "$now" >"$2"
fi
"""


def listen(instance: RedisInstance, port: int) -> list[str]:
    """The lines of a configuration file that say on which port a server or Sentinel listens, and whether only over TLS."""
    if instance.tls is None:
        return [f"port {port}"]
    return [
        "port 0",
        f"tls-port {port}",
        f"tls-cert-file {TLS}/tls.crt",
        f"tls-key-file {TLS}/tls.key",
        f"tls-ca-cert-file {TLS}/{AUTHORITY}",
        # Clients show who they are by their password.
        "tls-auth-clients no",
        # Replicas' and Sentinels' own connections.
        "tls-replication yes",
    ]


def cli_options(instance: RedisInstance) -> list[str]:
    """Options of redis-cli with which it talks to the instance's servers and Sentinels."""
    return ["--tls", "--cacert", f"{TLS}/{AUTHORITY}"] if instance.tls else []


def server_config(instance: RedisInstance) -> str:
    """The server's configuration file, without any secret: users and passwords are in the file that `aclfile` names."""
    lines = [
        *listen(instance, instance.port),
        # The ACL file asks every client for a password, which is what protected mode stands in for.
        "protected-mode no",
        f"dir {DATA}",
        f"aclfile {AUTH}/{ACL}",
        f"maxmemory {instance.maxmemory_bytes}",
        f"maxmemory-policy {instance.maxmemory_policy}",
        "tcp-keepalive 60",
        *_persistence(instance),
    ]
    if instance.replicas:
        # A replica has its data as soon as it can: until then it cannot take over.
        lines.append("repl-diskless-sync-delay 0")
    if instance.sentinel and instance.carries_broker:
        # A primary that lost its replicas refuses writes: what it took could not survive a failover. (Measured: a replica
        # in its first synchronization was promoted, empty.) Caches rather go on.
        lines += ["min-replicas-to-write 1", "min-replicas-max-lag 10"]
    return "\n".join(lines) + "\n"


def _persistence(instance: RedisInstance) -> list[str]:
    if instance.persistence == "none":
        return ["appendonly no", 'save ""', "shutdown-on-sigterm nosave"]
    # A snapshot after 15 minutes with one change, or 5 with a hundred; SIGTERM writes one more, so that a restart of the
    # pod loses nothing even without the append-only file.
    snapshots = ["save 900 1 300 100", "shutdown-on-sigterm save"]
    if instance.persistence == "rdb":
        return ["appendonly no", *snapshots]
    return ["appendonly yes", "appendfsync everysec", "aof-use-rdb-preamble yes", *snapshots]


def password_key(role: RedisRole) -> str:
    """Key of a user's password in the instance's Secret."""
    return f"{role}-password"


def scripts(instance: RedisInstance) -> dict[str, str]:
    """Files of the ConfigMap that the server's pods mount."""
    files = {"redis.conf": server_config(instance)}
    if instance.replicas:
        files |= {"find-primary.sh": FIND_PRIMARY, "join.sh": JOIN}
    if instance.sentinel:
        files["hand-over.sh"] = HAND_OVER
    if instance.tls:
        files["renew.sh"] = RENEW
    return files


def rules(instance: RedisInstance) -> dict[str, str]:
    """The ACL files without their passwords: a server reads them when it starts."""
    passwords: dict[RedisRole, str] = {user.role: "" for user in instance.users}
    files = {ACL: redis_acl.server_acl(instance, passwords, "")}
    if instance.sentinel:
        files[SENTINEL_ACL] = redis_acl.sentinel_acl(instance, passwords, "")
    return files


def role_environment(instance: RedisInstance) -> list[core.EnvVarArgs]:
    """What the scripts know of the instance and of their pod."""
    plain = {
        "NAME": instance.name,
        "PORT": str(instance.port),
        "SERVERS": str(instance.replicas + 1),
        "SENTINELS": str(SENTINELS if instance.sentinel else 0),
        "SENTINEL_PORT": str(SENTINEL_PORT),
        "DATA": DATA,
        "CONFIG": CONFIG,
        "AUTH": AUTH,
        **({"TLS": TLS, "CLI_TLS": " ".join(cli_options(instance))} if instance.tls else {}),
    }
    of_pod = {"POD_NAME": "metadata.name", "NAMESPACE": "metadata.namespace"}
    return [
        *environment(plain),
        *(
            core.EnvVarArgs(
                name=variable,
                value_from=core.EnvVarSourceArgs(field_ref=core.ObjectFieldSelectorArgs(field_path=path)),
            )
            for variable, path in of_pod.items()
        ),
    ]


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
        self.secret, self.fingerprint = self._auth(name, child)
        config = core.ConfigMap(
            f"{name}-config",
            metadata=metadata(scope, f"{name}-config", self._labels),
            data=scripts(instance),
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
                        labels=self._labels,
                        annotations={
                            f"{PREFIX}/config": content_hash({**scripts(instance), **rules(instance)})[:32],
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
                            acl_volume(self.secret, ACL),
                            *tls_volumes(instance),
                            scratch("tmp", "64Mi"),
                            *([] if persistent else [scratch("data", format_memory(instance.volume_bytes))]),
                        ],
                    ),
                ),
                volume_claim_templates=[volume_claim("data", instance.volume_bytes, self.match)] if persistent else None,
            ),
            opts=child,
        )
        if instance.replicas:
            disruption_budget(name, scope, self.match, self._labels, child)
        self.register_outputs({"secret": self.secret})

    def _auth(self, name: str, opts: pulumi.ResourceOptions) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        operator = random.RandomPassword(f"{name}-operator", length=32, special=False, opts=opts)
        instance = self._args.instance
        passwords = {
            OPERATOR_PASSWORD: operator.result,
            **{password_key(role): pulumi.Output.from_input(value) for role, value in self._args.passwords.items()},
        }

        def file(write: Callable[[RedisInstance, Mapping[RedisRole, str], str], str]) -> pulumi.Output[str]:
            return pulumi.Output.all(**passwords).apply(
                lambda known: write(
                    instance,
                    {user.role: known[password_key(user.role)] for user in instance.users},
                    known[OPERATOR_PASSWORD],
                )
            )

        secret = core.Secret(
            f"{name}-auth",
            metadata=metadata(self._args.scope, f"{name}-auth", self._labels),
            type="Opaque",
            string_data={
                **passwords,
                ACL: file(redis_acl.server_acl),
                **({SENTINEL_ACL: file(redis_acl.sentinel_acl)} if instance.sentinel else {}),
            },
            opts=opts,
        )
        return name_of(secret.metadata, f"{name}-auth"), fingerprint(passwords)

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
        return [
            core.VolumeMountArgs(name="data", mount_path=DATA),
            core.VolumeMountArgs(name="config", mount_path=CONFIG, read_only=True),
            core.VolumeMountArgs(name="auth", mount_path=AUTH, read_only=True),
            *tls_mounts(self._args.instance),
            core.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 a volume of the pod's own
        ]

    def _join(self) -> core.ContainerArgs:
        return core.ContainerArgs(
            name="join",
            image=self._args.images.redis,
            image_pull_policy=self._args.images.pull_policy,
            command=["sh", f"{CONFIG}/join.sh"],
            env=[
                *role_environment(self._args.instance),
                secret_variable("REDISCLI_AUTH", self.secret, OPERATOR_PASSWORD),
            ],
            resources=container_resources(self._args.instance.resources),
            security_context=container_security(),
            volume_mounts=self._mounts(),
        )

    def _server(self) -> core.ContainerArgs:
        instance = self._args.instance
        # `-e` makes an error reply (still loading, wrong password) a failure.
        ping = ["redis-cli", *cli_options(instance), "--user", redis_acl.OPERATOR, "-e", "-p", str(instance.port), "ping"]
        alive = ["sh", f"{CONFIG}/renew.sh", str(instance.port), "/tmp/certificate", "server"] if instance.tls else ping  # noqa: S108
        hand_over = core.LifecycleArgs(
            pre_stop=core.LifecycleHandlerArgs(exec_=core.ExecActionArgs(command=["sh", f"{CONFIG}/hand-over.sh"]))
        )
        return core.ContainerArgs(
            name="redis",
            image=self._args.images.redis,
            image_pull_policy=self._args.images.pull_policy,
            command=["redis-server", f"{DATA}/node.conf" if instance.replicas else f"{CONFIG}/redis.conf"],
            env=[
                *role_environment(self._args.instance),
                secret_variable("REDISCLI_AUTH", self.secret, OPERATOR_PASSWORD),
            ],
            ports=[core.ContainerPortArgs(name="redis", container_port=instance.port)],
            resources=container_resources(instance.resources),
            security_context=container_security(),
            # Loading a full append-only file takes minutes; killing the server in the middle would never end.
            startup_probe=exec_probe(ping, period=2, failures=300),
            readiness_probe=exec_probe(["sh", "-c", IN_SYNC] if instance.replicas else ping, period=5, failures=2),
            liveness_probe=exec_probe(alive, period=10, failures=6),
            lifecycle=hand_over if instance.sentinel else None,
            volume_mounts=self._mounts(),
        )


def acl_volume(secret: pulumi.Input[str], key: str) -> core.VolumeArgs:
    """The volume `auth` with the ACL file that is at `key` of an instance's Secret."""
    return core.VolumeArgs(
        name="auth",
        secret=core.SecretVolumeSourceArgs(
            secret_name=secret, items=[core.KeyToPathArgs(key=key, path=key)], default_mode=0o440
        ),
    )


def tls_volumes(instance: RedisInstance) -> list[core.VolumeArgs]:
    """The volume with certificate, key and authority of an instance's servers and Sentinels; none without TLS."""
    if instance.tls is None:
        return []
    items = [core.KeyToPathArgs(key=key, path=key) for key in ("tls.crt", "tls.key", AUTHORITY)]
    source = core.SecretVolumeSourceArgs(secret_name=instance.tls.secret_name, items=items, default_mode=0o440)
    return [core.VolumeArgs(name="tls", secret=source)]


def tls_mounts(instance: RedisInstance) -> list[core.VolumeMountArgs]:
    """Where containers have that volume."""
    return [core.VolumeMountArgs(name="tls", mount_path=TLS, read_only=True)] if instance.tls else []


def certificate_names(instance: RedisInstance, namespace: str) -> list[str]:
    """DNS names that the certificate of an instance must have, wherever clients ask for it from."""

    def services(name: str) -> list[str]:
        return [name, f"{name}.{namespace}.svc", f"*.{name}-nodes.{namespace}.svc"]

    return [*services(instance.name), *(services(sentinel_name(instance)) if instance.sentinel else [])]


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


def sentinel_name(instance: RedisInstance) -> str:
    """Name of the instance's Sentinels and of their Service: where clients ask for the primary."""
    return f"{instance.name}{SENTINEL_SUFFIX}"
