"""The Redis (or Valkey) servers: the broker's and the caches'."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from topology.quantities import Memory
from topology.settings.resources import Resources
from topology.settings.section import Section
from topology.settings.tls import ServerCertificate
from topology.settings.values import Cidr, Host, NotNegative, ObjectName, ServerPort, matching

EvictionPolicy = Literal[
    "noeviction",
    "volatile-lru",
    "volatile-lfu",
    "volatile-ttl",
    "volatile-random",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
]
Persistence = Literal["aof", "rdb", "none"]
RedisUserName = Annotated[
    str, matching(r"[^\s/:@]+", "must be the name of an ACL user|Give its name, or default; the password is a secret")
]


class ExistingRedisSettings(Section):
    """A Redis (or Valkey) server that someone else runs, such as a managed one; its password is a secret."""

    host: Host = Field(description="host of the server")
    port: ServerPort = Field(default=6379, description="port of the server")
    username: RedisUserName = Field(default="default", description="its ACL user, for all that this server is used for")
    password_secret: ObjectName | None = Field(
        default=None,
        description="Secret with the key password; null: the password is superset-async:redis_passwords.broker or .cache",
    )
    tls: bool = Field(default=False, description="connect over TLS and verify the server's certificate and name")
    ca_secret: ObjectName | None = Field(
        default=None, description="Secret with the authority in the key ca.crt; null: the system's authorities. Needs tls"
    )
    cidrs: tuple[Cidr, ...] | None = Field(
        default=None,
        strict=False,
        description="on a cluster: networks of the server, where pods may reach its port; null: the address, or the Service's "
        "namespace, that host is",
    )


class RedisServer(Section):
    """What a server runs with, as a stack file says it and a topology has it. Sizes in bytes."""

    maxmemory_bytes: Memory = Field(
        validation_alias="maxmemory",
        description="bytes of data at which `maxmemory_policy` acts; at most 75 % of the memory limit",
    )
    maxmemory_policy: EvictionPolicy = Field(description="what happens at maxmemory; never allkeys-* under a broker")
    persistence: Persistence = Field(
        description="aof (fsync each second, and snapshots), rdb (snapshots) or none; a change converts"
    )
    replicas: NotNegative = Field(description="read replicas that can take over")
    sentinel: bool = Field(description="Sentinel promotes a replica when the primary is gone; needs 2 replicas or more")
    volume_bytes: Memory = Field(
        validation_alias="volume_size", description="persistent volume; at least 4.7 × maxmemory with aof, 2.2 × with rdb"
    )
    resources: Resources


class RedisSettings(RedisServer):
    """One Redis (or Valkey) server."""

    existing: ExistingRedisSettings | None = Field(
        description="null: this project runs the server; else only this counts, with replicas: 0 and sentinel: false"
    )


class RedisTier(Section):
    """Where the broker and the caches live."""

    broker: RedisSettings = Field(description="the server of the broker, Celery's results and the async events")
    cache: RedisSettings | None = Field(description="a server of its own for the caches; null: they share the broker's")
    tls: ServerCertificate | None = Field(
        description="certificate of the servers that this project runs, which then speak only TLS; null: none"
    )

    def servers(self) -> dict[str, RedisSettings]:
        """The servers by the path of their section: one, or two where the caches have their own."""
        return {"redis.broker": self.broker} | ({"redis.cache": self.cache} if self.cache else {})
