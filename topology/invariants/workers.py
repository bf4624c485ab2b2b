"""Rules about the sizes of worker pools, and of every container."""

from __future__ import annotations

from collections.abc import Iterator

from topology.invariants.keys import pool_key
from topology.model import Topology
from topology.problems import Problem
from topology.quantities import format_memory
from topology.settings import Resources, Settings

#: Resident memory of a Superset worker's child that has run nothing yet: 214 to 233 MB measured on Superset 6.1.
CHILD_AT_REST_BYTES = 233_000_000


def requests_hold(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Requests are positive (a CPU scaler divides by them) and within limits."""
    sections: list[tuple[str, Resources]] = [
        ("web", settings.web.resources),
        ("workers", settings.workers.resources),
        ("postgres", settings.postgres.resources),
        *((key, redis.resources) for key, redis in settings.redis.servers().items() if not redis.existing),
        *((f"pools.{name}", pool.resources) for name, pool in settings.pools.items() if pool.resources),
    ]
    for key, resources in (*sections, ("beat", settings.beat_resources)):
        where = "beat_resources" if key == "beat" else f"{key}.resources"
        for kind, request, limit in (
            ("cpu", resources.cpu_request_millis, resources.cpu_limit_millis),
            ("memory", resources.memory_request_bytes, resources.memory_limit_bytes),
        ):
            if not 0 < request <= limit:
                yield Problem(
                    f"{where}.{kind}_request",
                    str(request),
                    f"must be above 0 and at most the limit ({limit})",
                    f"Change it, or {where}.{kind}_limit",
                    also=(f"{where}.{kind}_limit",),
                )


def workers_are_a_range(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """No pool has more workers at rest than under load."""
    for pool in topology.pools:
        if pool.min_workers > pool.max_workers:
            key = pool_key(settings, pool.name, "min_workers")
            yield Problem(
                key,
                str(pool.min_workers),
                f"must be at most max_workers of the same pool ({pool.max_workers})",
                "Lower it, or raise max_workers",
                also=(pool_key(settings, pool.name, "max_workers"),),
            )


def children_fit(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A child may grow beyond its size at rest before it is replaced, and all children of a worker fit into its limit."""
    for pool in topology.pools:
        limit = pool.max_memory_per_child_bytes
        if limit is None:
            continue
        key = pool_key(settings, pool.name, "max_memory_per_child")
        if limit <= CHILD_AT_REST_BYTES:
            yield Problem(
                key,
                format_memory(limit),
                f"must be above what a child needs at rest ({CHILD_AT_REST_BYTES // 10**6} MB): "
                "it would be replaced after every task",
                "Raise it; 433M leaves 200 MB for a task",
            )
        elif limit * pool.concurrency > pool.resources.memory_limit_bytes:
            yield Problem(
                key,
                format_memory(limit),
                f"times concurrency {pool.concurrency} is above the worker's memory limit "
                f"({format_memory(pool.resources.memory_limit_bytes)}): the worker is killed before a child is replaced",
                "Lower it or the concurrency, or raise the pool's memory limit",
                also=("workers.concurrency", "workers.resources.memory_limit", f"pools.{pool.name}"),
            )
