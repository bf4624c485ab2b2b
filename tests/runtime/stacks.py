"""The project's stack files as topologies, and the environment that a process of one has."""

from __future__ import annotations

from tests.plain import without_tls
from topology import stack_file
from topology.model import RedisInstance, RedisRole, Topology
from topology.plan import plan

STACKS = ("local", "minimal", "enterprise", "high-throughput", "multi-tenant")
ODD_PASSWORD = "p@ss/w:rd%41 ü#?"
REDIS_PASSWORDS: dict[RedisRole, str] = {
    "broker": "r@d/s%:#b",
    "cache": "r@d/s%:#c",
    "reader": "r@d/s%:#r",
    "monitor": "r@d/s%:#m",
}


def topology(stack: str, **changes: object) -> Topology:
    """The topology of a stack file, with `changes` laid over its keys; its servers are this machine's, without TLS."""
    return plan(stack, {**without_tls(stack_file.read(stack)), **changes})


def one_server() -> RedisInstance:
    """The one Redis of a stack with the multi-tenant stack's queues: its users are told apart by the names of keys alone."""
    queues = topology("multi-tenant").celery.queues
    (found,) = topology("minimal", celery={"queues": [*queues]}, pools={"default": {"queues": [*queues]}}).redis
    return found


def environment(topology: Topology, role: str = "web") -> dict[str, str]:
    """Every secret that the topology's processes get, as environment variables."""
    return {
        "SUPERSET_ASYNC_ROLE": role,
        "SUPERSET_SECRET_KEY": "a-secret-key-that-is-long-enough-for-tests",
        "ASYNC_QUERIES_JWT_SECRET": "a-jwt-secret-that-is-long-enough-for-tests",
        topology.postgres.password_env: ODD_PASSWORD,
        **{name: f"{name}-that-is-long-enough-for-tests" for name in topology.message_key_envs().values()},
        **{user.password_env: REDIS_PASSWORDS[role] for role, user in topology.redis_users().items()},
    }
