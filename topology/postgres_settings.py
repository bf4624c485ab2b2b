"""The settings of the metadata database's server, for pods and for processes of this machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from topology.model import Postgres
from topology.quantities import MIB


def server_settings(postgres: Postgres) -> dict[str, str]:
    """What the topology decides about the server, whichever platform starts it.

    A quarter of the memory request for shared buffers is PostgreSQL's own advice for a dedicated server; the connections
    that the topology reserves are the superuser's, so that an operator gets in when the tiers use all the others.
    """
    return {
        "max_connections": str(postgres.max_connections),
        "superuser_reserved_connections": str(postgres.reserved_connections),
        "shared_buffers": f"{max(postgres.resources.memory_request_bytes // 4 // MIB, 32)}MB",
        "effective_cache_size": f"{max(postgres.resources.memory_request_bytes * 3 // 4 // MIB, 96)}MB",
        "password_encryption": "scram-sha-256",
    }


def arguments(settings: Mapping[str, str]) -> list[str]:
    """Settings as arguments of the program `postgres`: `-c NAME=VALUE` each."""
    return [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
