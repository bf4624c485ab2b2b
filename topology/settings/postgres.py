"""The metadata database's server, and the connections to it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from topology.quantities import Memory
from topology.settings.resources import Resources
from topology.settings.section import Section
from topology.settings.tls import ServerCertificate
from topology.settings.values import Cidr, Cron, Host, NotNegative, ObjectName, Positive, PostgresName, ServerPort

PostgresKind = Literal["statefulset", "cloudnativepg", "rds", "existing"]


class ConnectionPool(Section):
    """SQLAlchemy pool of one process on the metadata database: at most `size + max_overflow` connections."""

    size: Positive = Field(description="connections kept open")
    max_overflow: NotNegative = Field(description="connections beyond `size` under load")
    recycle_seconds: Positive = Field(validation_alias="recycle", description="seconds after which a connection is replaced")

    @property
    def most(self) -> int:
        """The most connections that one process opens through this pool."""
        return self.size + self.max_overflow


class Backup(Section):
    """Dumps of the metadata database that this project runs."""

    cron: Cron = Field(description="when, in UTC: minute hour day-of-month month day-of-week")
    keep: Positive = Field(description="dumps kept; the oldest goes when a new one is complete")
    volume_bytes: Memory = Field(validation_alias="volume_size", description="persistent volume of the dumps")


class PostgresServer(Section):
    """What the server runs with, as a stack file says it and a topology has it. Sizes in bytes."""

    kind: PostgresKind = Field(
        description="statefulset (one server), cloudnativepg (that operator's Cluster), rds (platform aws), existing (give host)"
    )
    database: PostgresName = Field(description="name of the metadata database")
    user: PostgresName = Field(description="role that owns the metadata database")
    reserved_connections: NotNegative = Field(description="connections kept free for operators, backups and monitoring")
    instances: Positive = Field(description="servers of a cloudnativepg cluster: a primary and its replicas; otherwise 1")
    volume_bytes: Memory = Field(validation_alias="volume_size", description="persistent volume")
    backup: Backup | None = Field(description="dumps to a volume; null: none. Not for an existing server")
    resources: Resources


class PostgresSettings(PostgresServer):
    """The metadata database's server."""

    host: Host | None = Field(description="host of an existing server; null for one that this project runs")
    port: ServerPort = Field(description="port of the server")
    cidrs: tuple[Cidr, ...] | None = Field(
        strict=False,
        description="on a cluster: networks of an existing server, where pods may reach its port; null: the address, or the "
        "Service's namespace, that host is",
    )
    ca_secret: ObjectName | None = Field(
        description="on a cluster: Secret with the authority of an existing server's certificate in the key ca.crt, by which "
        "clients verify it and its name; null: they verify nothing"
    )
    tls: ServerCertificate | None = Field(
        description="certificate of the server that this project runs, which then takes only TLS; null: none"
    )
    max_connections: Positive | None = Field(description="the server's limit; null: derived from what the tiers can open")
