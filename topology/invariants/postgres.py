"""Rules about the server of the metadata database."""

from __future__ import annotations

import re
from collections.abc import Iterator

from topology.connection_budget import connections_needed
from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings
from topology.settings.values import IDENTIFIER


def connections_fit(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Everything that can connect to PostgreSQL at once fits into max_connections less the reserve."""
    needed = connections_needed(topology.celery, topology.pools, topology.web)
    postgres = topology.postgres
    if needed > postgres.max_connections - postgres.reserved_connections:
        yield Problem(
            "postgres.max_connections",
            str(postgres.max_connections),
            f"is below {needed + postgres.reserved_connections}: workers and web can open {needed} connections, "
            f"and {postgres.reserved_connections} are reserved",
            "Leave it out to have it derived, or lower max_workers, concurrency or the connection pools",
            also=("postgres.reserved_connections", "web", "workers", "pools", "celery.connections"),
        )


def postgres_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A server that runs elsewhere says where and how large; one that this project runs does not."""
    postgres = settings.postgres
    if postgres.kind == "existing":
        if postgres.host is None:
            yield Problem("postgres.host", "null", "must name the existing server", "Give its host name")
        if postgres.max_connections is None:
            yield Problem(
                "postgres.max_connections",
                "null",
                "cannot be derived for an existing server",
                "Give the server's own limit (SHOW max_connections)",
            )
        if postgres.backup is not None:
            yield Problem("postgres.backup", "…", "is not for an existing server, which has its own", "Set it to null")
    elif postgres.host is not None:
        yield Problem("postgres.host", postgres.host, f"is not for kind {postgres.kind}", "Remove it, or set kind: existing")
    if postgres.kind in ("existing", "rds") and postgres.tls:
        yield Problem(
            "postgres.tls",
            postgres.tls.kind,
            f"has no use: this project does not run a server of kind {postgres.kind}, which has a certificate of its own",
            "Set it to null; the authority of an existing server is postgres.ca_secret",
            also=("postgres.kind",),
        )
    if postgres.kind != "existing" and postgres.ca_secret:
        yield Problem(
            "postgres.ca_secret",
            postgres.ca_secret,
            f"is not for kind {postgres.kind}, whose authority is known",
            "Set it to null; the certificate of a server that this project runs is postgres.tls",
            also=("postgres.kind",),
        )
    for key, name in (("postgres.user", postgres.user), ("postgres.database", postgres.database)):
        if postgres.kind != "existing" and not re.fullmatch(IDENTIFIER, name):
            yield Problem(
                key,
                repr(name),
                "must be at most 63 lower-case letters, digits and '_', beginning with a letter, where this project makes it",
                "Choose such a name",
                also=("postgres.kind",),
            )
    if postgres.instances > 1 and postgres.kind != "cloudnativepg":
        yield Problem(
            "postgres.instances",
            str(postgres.instances),
            f"needs kind cloudnativepg: a {postgres.kind} is one server",
            "Set it to 1, or postgres.kind: cloudnativepg",
            also=("postgres.kind",),
        )
