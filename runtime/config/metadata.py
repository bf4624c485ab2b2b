"""The metadata database: its URL, and how many connections a process of each role may open to it."""

from __future__ import annotations

from runtime.environment.metadata_database import connect_args, uri
from runtime.environment.process_topology import Role
from runtime.environment.secrets import Secrets
from topology.connection_budget import BEAT_CONNECTIONS
from topology.model import Topology
from topology.settings.postgres import ConnectionPool


def pool(topology: Topology, role: Role) -> ConnectionPool:
    """The pool of one process of `role`, of which beat may have two at once; the init job does one thing after the other, on one
    connection."""
    if role == "web":
        return topology.web.connections
    if role == "worker":
        return topology.celery.connections
    most = BEAT_CONNECTIONS // 2 if role == "beat" else 1
    return ConnectionPool(size=1, max_overflow=most - 1, recycle_seconds=topology.celery.connections.recycle_seconds)


def engine_options(topology: Topology, role: Role) -> dict[str, object]:
    """SQLAlchemy's engine options for a process of `role`: never more than the pool's size and overflow together."""
    connections = pool(topology, role)
    return {
        "pool_size": connections.size,
        "max_overflow": connections.max_overflow,
        "pool_recycle": connections.recycle_seconds,
        "pool_pre_ping": True,
        "pool_timeout": 30,
        # The last one used is used next, so that the others age and are closed when load is gone.
        "pool_use_lifo": True,
        "connect_args": connect_args(f"superset-{role}"),
    }


def settings(topology: Topology, secrets: Secrets, role: Role) -> dict[str, object]:
    """Superset's settings of the metadata database."""
    return {
        "SQLALCHEMY_DATABASE_URI": uri(topology, secrets),
        "SQLALCHEMY_ENGINE_OPTIONS": engine_options(topology, role),
        "SECRET_KEY": secrets.secret_key,
        # Alembic would otherwise replace the process's logging.
        "ALEMBIC_SKIP_LOG_CONFIG": True,
    }
