"""The project's stack files as topologies, and the environment that a process of one has."""

from __future__ import annotations

from infra import stackfile
from infra.topology import plan
from runtime.model import Topology

STACKS = ("local", "minimal", "enterprise", "high-throughput", "multi-tenant")
ODD_PASSWORD = "p@ss/w:rd%41 ü#?"
REDIS_PASSWORD = "r@d/s%:#"


def topology(stack: str, **changes: object) -> Topology:
    """The topology of a stack file, with `changes` laid over its keys."""
    return plan(stack, {**stackfile.read(stack), **changes})


def environment(topology: Topology, role: str = "web") -> dict[str, str]:
    """Every secret that the topology's processes get, as environment variables."""
    return {
        "SUPERSET_ASYNC_ROLE": role,
        "SUPERSET_SECRET_KEY": "a-secret-key-that-is-long-enough-for-tests",
        "ASYNC_QUERIES_JWT_SECRET": "a-jwt-secret-that-is-long-enough-for-tests",
        topology.postgres.password_env: ODD_PASSWORD,
        **{instance.password_env: REDIS_PASSWORD for instance in topology.redis},
    }
