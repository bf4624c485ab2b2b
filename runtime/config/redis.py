"""Where each purpose's Redis database is, as the URLs and settings of the libraries that use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from runtime.config.secrets import ConfigurationError, Secrets
from runtime.model import Purpose, Topology

#: A Redis that does not answer within these is down: a request or a submission then fails in seconds.
CONNECT_TIMEOUT_SECONDS = 3
SOCKET_TIMEOUT_SECONDS = 10
#: A connection that was idle this long is tried with a PING before it is used again.
HEALTH_CHECK_SECONDS = 30


@dataclass(frozen=True)
class Database:
    """One Redis database with how to reach it. `ttl_seconds` is None where its keys are not a cache."""

    host: str
    port: int
    number: int
    password: str = field(repr=False)
    prefix: str
    ttl_seconds: int | None

    @property
    def url(self) -> str:
        """`redis://` URL with password and database number."""
        return f"redis://:{quote(self.password, safe='')}@{self.host}:{self.port}/{self.number}"


def database(topology: Topology, secrets: Secrets, purpose: Purpose) -> Database:
    """The database for `purpose`; KeyError where the topology has none."""
    wanted = topology.database(purpose)
    instance = topology.instance(wanted.instance)
    if instance.sentinel:
        raise ConfigurationError(
            f"stack {topology.stack!r}: Redis {instance.name!r} is behind Sentinel, which Superset's settings do not cover "
            f"yet. Set redis.{'broker' if instance.carries_broker else 'cache'}.sentinel: false"
        )
    return Database(
        host=instance.host,
        port=instance.port,
        number=wanted.number,
        password=secrets.redis[instance.name],
        prefix=wanted.prefix,
        ttl_seconds=wanted.default_ttl_seconds,
    )


def client_options() -> dict[str, object]:
    """Keyword arguments of redis-py's client with which a dead or silent server is noticed in seconds."""
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_SECONDS,
    }
