"""Where each purpose's Redis database is, as the URLs and settings of the libraries that use it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import quote

from runtime.environment.secrets import Secrets
from topology.model import SENTINEL_PORT, SENTINEL_SUFFIX, Purpose, RedisRole, ServerTls, Topology

#: A Redis that does not answer within these is down: a request or a submission then fails in seconds.
CONNECT_TIMEOUT_SECONDS = 3
SOCKET_TIMEOUT_SECONDS = 5
#: A connection that was idle this long is tried with a PING before it is used again.
HEALTH_CHECK_SECONDS = 30


@dataclass(frozen=True)
class Database:
    """One Redis database with how to reach it: the server's address, or that of the Sentinels that know `service`.

    `ttl_seconds` is None where its keys are not a cache.
    """

    host: str
    port: int
    number: int
    username: str
    password: str = field(repr=False)
    prefix: str
    ttl_seconds: int | None
    service: str | None
    tls: ServerTls | None = None

    @property
    def url(self) -> str:
        """Celery's URL of it, with the password: `redis://…`, over TLS `rediss://…`; `sentinel://…`, with TLS or without, where
        Sentinels know the server.
        """
        scheme = "sentinel" if self.service else "rediss" if self.tls else "redis"
        user, password = quote(self.username, safe=""), quote(self.password, safe="")
        return f"{scheme}://{user}:{password}@{self.host}:{self.port}/{self.number}"

    def sentinel_options(self) -> dict[str, object]:
        """Keyword arguments of redis-py's clients of the Sentinels themselves."""
        return {"username": self.username, "password": self.password, **self.client_options()}

    def client_options(self) -> dict[str, object]:
        """Keyword arguments of redis-py's client that say how to talk to the server: for how long, and over TLS or not."""
        return {**client_options(), **({"ssl": True} if self.tls else {}), **self.verification()}

    def verification(self) -> dict[str, object]:
        """Keyword arguments of redis-py's TLS connections, by which a server is refused that is not the one meant; empty
        without TLS.

        They are all that differs over TLS, for every library: Celery takes them as `broker_use_ssl` and
        `redis_backend_use_ssl`, the others with `ssl` among a client's options. redis-py alone would take a certificate of
        any name.
        """
        if self.tls is None:
            return {}
        authority = {"ssl_ca_certs": self.tls.ca_file} if self.tls.ca_file else {}
        return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **authority}


def database(topology: Topology, secrets: Secrets, purpose: Purpose) -> Database:
    """The database for `purpose`; KeyError where the topology has none."""
    return located(topology, purpose, secrets.redis[topology.database(purpose).role])


def located(topology: Topology, purpose: Purpose, password: str, role: RedisRole | None = None) -> Database:
    """The database for `purpose`, for a process that has no more than the password of its user, or of the user of `role`."""
    wanted = topology.database(purpose)
    instance = topology.instance(wanted.instance)
    return Database(
        host=f"{instance.name}{SENTINEL_SUFFIX}" if instance.sentinel else instance.host,
        port=SENTINEL_PORT if instance.sentinel else instance.port,
        number=wanted.number,
        username=topology.redis_users()[role or wanted.role].username,
        password=password,
        prefix=wanted.prefix,
        ttl_seconds=wanted.default_ttl_seconds,
        service=instance.name if instance.sentinel else None,
        tls=instance.tls,
    )


def numbered(database: Database, number: int) -> Database:
    """The database of another number on the same server."""
    return replace(database, number=number)


def client_options() -> dict[str, object]:
    """Keyword arguments of redis-py's client with which a dead or silent server is noticed in seconds."""
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_SECONDS,
    }
