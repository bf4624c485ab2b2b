"""The configuration files of a Redis or Valkey server and of its Sentinels, for pods and for processes of this machine. Pure.

No secret is in them: users and passwords are in the ACL file, whose path they name (`topology.redis_acl` writes it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from topology import redis_acl
from topology.model import SENTINEL_PORT, RedisInstance

#: Milliseconds without an answer after which a server is taken for gone.
DOWN_AFTER_MS = 5_000
#: Milliseconds in which a failover has to be done, after which a replica of another server than the primary is put right, and
#: twice of which lie between two tries.
FAILOVER_TIMEOUT_MS = 10_000
#: Milliseconds for which a script may run, and nothing else with it, before `runtime.environment.script_watchdog` can end it.
SCRIPT_MS = 5_000
#: Names of the files in the folder of certificates, as cert-manager writes them into a Secret.
CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"

_PLAIN = re.compile(r"[\w./@:+,=-]+")


@dataclass(frozen=True)
class ServerPaths:
    """What the platform decides about a server or Sentinel: where its files are, and at which address it listens."""

    #: The working folder: data, or what a Sentinel has found out.
    data: str
    #: The ACL file, with the users and their passwords.
    acl_file: str
    #: The folder with certificate, key and authority; used only where the instance has TLS.
    certificates: str = ""
    #: The only address that is listened on; None: every address.
    bind: str | None = None


def server_conf(instance: RedisInstance, paths: ServerPaths) -> str:
    """The configuration file of each of the instance's servers."""
    lines = [
        *_listen(instance, instance.port, paths),
        f"maxmemory {instance.maxmemory_bytes}",
        f"maxmemory-policy {instance.maxmemory_policy}",
        "tcp-keepalive 60",
        f"lua-time-limit {SCRIPT_MS}",
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


def volume_needed(maxmemory_bytes: int, *, append_only: bool, snapshots: bool) -> int:
    """Bytes of a volume on which a server has room for all that it writes, with values that do not compress and a full memory.

    It writes what was measured. With an append-only file: its base, what came since, the rewrite of both, and with snapshots the
    old one and the new one as well. With snapshots alone the old one stays until the new one is complete. Of the volume the
    file system has the rest: ext4 without reserved blocks keeps 5 % of 1 or 2 GiB. 0 without either.
    """
    hundredths = (440 if snapshots else 350) if append_only else (200 if snapshots else 0)
    return -(-maxmemory_bytes * hundredths // 95)


def sentinel_conf(instance: RedisInstance, paths: ServerPaths, port: int = SENTINEL_PORT) -> str:
    """What a Sentinel's configuration file begins with: where it listens, and as which user it talks to other Sentinels.

    The line `sentinel monitor NAME PRIMARY PORT QUORUM`, which only a started pod can write, and `monitor_conf` follow.
    """
    lines = [
        *_listen(instance, port, paths),
        f"sentinel sentinel-user {redis_acl.OPERATOR}",
        "sentinel resolve-hostnames yes",
        "sentinel announce-hostnames yes",
        f"sentinel announce-port {port}",
    ]
    return "\n".join(lines) + "\n"


def monitor_conf(instance: RedisInstance) -> str:
    """What a Sentinel's configuration file says about the servers it watches, after its `sentinel monitor` line."""
    lines = [
        f"sentinel auth-user {instance.name} {redis_acl.OPERATOR}",
        f"sentinel down-after-milliseconds {instance.name} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {instance.name} {FAILOVER_TIMEOUT_MS}",
        f"sentinel parallel-syncs {instance.name} 1",
    ]
    return "\n".join(lines) + "\n"


def _listen(instance: RedisInstance, port: int, paths: ServerPaths) -> list[str]:
    return [
        *([f"bind {paths.bind}"] if paths.bind else []),
        *(_tls(port, paths.certificates) if instance.tls else [f"port {port}"]),
        # The ACL file asks every client for a password, which is what protected mode stands in for.
        "protected-mode no",
        f"dir {_argument(paths.data)}",
        f"aclfile {_argument(paths.acl_file)}",
    ]


def _tls(port: int, certificates: str) -> list[str]:
    return [
        "port 0",
        f"tls-port {port}",
        f"tls-cert-file {_argument(f'{certificates}/{CERTIFICATE}')}",
        f"tls-key-file {_argument(f'{certificates}/{KEY}')}",
        f"tls-ca-cert-file {_argument(f'{certificates}/{AUTHORITY}')}",
        # Clients show who they are by their password.
        "tls-auth-clients no",
        # Replicas' and Sentinels' own connections.
        "tls-replication yes",
    ]


def _persistence(instance: RedisInstance) -> list[str]:
    if instance.persistence == "none":
        return ["appendonly no", 'save ""', "shutdown-on-sigterm nosave"]
    # A snapshot after 15 minutes with one change, or 5 with a hundred; SIGTERM writes one more, so that a restart
    # loses nothing even without the append-only file. Where that is not possible, such as on a full disk, the server ends
    # all the same (`force`), with its last snapshot or its append-only file: it would else wait for SIGKILL, which saves no more.
    snapshots = ["save 900 1 300 100", "shutdown-on-sigterm save force"]
    if instance.persistence == "rdb":
        return ["appendonly no", *snapshots]
    return ["appendonly yes", "appendfsync everysec", "aof-use-rdb-preamble yes", *snapshots]


def _argument(path: str) -> str:
    """A path as one argument of a directive: in double quotes where it has other than the usual characters."""
    if _PLAIN.fullmatch(path):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
