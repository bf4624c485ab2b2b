"""What the pods of a Redis instance and of its Sentinels mount: configuration, scripts, users and certificates, and where."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.core import v1 as core

from components import scripts
from components.certificate import server_mounts
from components.common import environment
from runtime.start import start_script
from topology import redis_acl, valkey_conf
from topology.model import SENTINEL_PORT, RedisInstance, RedisRole
from topology.valkey_conf import AUTHORITY, ServerPaths

DATA = "/data"
CONFIG = "/etc/redis"
AUTH = "/etc/redis-auth"
TLS = "/etc/redis-tls"
#: Keys of the Secret with the ACL files, which are also the names of the files.
SERVER_ACL = "users.acl"
SENTINEL_ACL = "sentinel.acl"
#: The script that starts a server.
START = "redis.sh"
#: Sentinels of an instance: one may be lost, and two agree that a server is gone.
SENTINELS = 3

#: Where servers and Sentinels have their files in a pod.
SERVER_PATHS = ServerPaths(data=DATA, acl_file=f"{AUTH}/{SERVER_ACL}", certificates=TLS)
SENTINEL_PATHS = ServerPaths(data=DATA, acl_file=f"{AUTH}/{SENTINEL_ACL}", certificates=TLS)


def server_files(instance: RedisInstance) -> dict[str, str]:
    """Files of the ConfigMap that the server's pods mount at CONFIG."""
    files = {
        "redis.conf": valkey_conf.server_conf(instance, SERVER_PATHS),
        START: start_script().read_text(encoding="utf-8"),
        **scripts.texts("ready.sh"),
    }
    if instance.replicas:
        files |= scripts.texts("find-primary.sh", "join.sh")
    if instance.sentinel:
        files |= scripts.texts("hand-over.sh")
    if instance.tls:
        files |= scripts.texts("renew.sh")
    return files


def sentinel_files(instance: RedisInstance) -> dict[str, str]:
    """Files of the ConfigMap that the Sentinels' pods mount at CONFIG."""
    return {
        "sentinel.conf": valkey_conf.sentinel_conf(instance, SENTINEL_PATHS),
        "monitor.conf": valkey_conf.monitor_conf(instance),
        **scripts.texts("find-primary.sh", "watch.sh"),
        **(scripts.texts("renew.sh") if instance.tls else {}),
    }


def acl_rules(instance: RedisInstance) -> dict[str, str]:
    """The ACL files without their passwords: a server reads them only when it starts, so a change must start it anew."""
    passwords: dict[RedisRole, str] = {user.role: "" for user in instance.users}
    files = {SERVER_ACL: redis_acl.server_acl(instance, passwords, "")}
    if instance.sentinel:
        files[SENTINEL_ACL] = redis_acl.sentinel_acl(instance, passwords, "")
    return files


def cli_options(instance: RedisInstance) -> list[str]:
    """Options of redis-cli with which it talks to the instance's servers and Sentinels."""
    return ["--tls", "--cacert", f"{TLS}/{AUTHORITY}"] if instance.tls else []


def script_environment(instance: RedisInstance) -> list[core.EnvVarArgs]:
    """The variables that tell the scripts about the instance and their pod."""
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


def acl_volume(secret: pulumi.Input[str], key: str) -> core.VolumeArgs:
    """The volume `auth` with the ACL file that is at `key` of an instance's Secret."""
    return core.VolumeArgs(
        name="auth",
        secret=core.SecretVolumeSourceArgs(
            secret_name=secret, items=[core.KeyToPathArgs(key=key, path=key)], default_mode=0o440
        ),
    )


def mounts(instance: RedisInstance) -> list[core.VolumeMountArgs]:
    """Where containers of servers and Sentinels have their volumes: `data`, `config`, `auth`, and `tls` where there is one."""
    return [
        core.VolumeMountArgs(name="data", mount_path=DATA),
        core.VolumeMountArgs(name="config", mount_path=CONFIG, read_only=True),
        core.VolumeMountArgs(name="auth", mount_path=AUTH, read_only=True),
        *server_mounts(instance.tls, TLS),
    ]
