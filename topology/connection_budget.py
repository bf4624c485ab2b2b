"""The connection budget: how many connections to PostgreSQL the tiers of a topology can open together."""

from __future__ import annotations

from topology.model import Celery, Pool, Web

#: Of beat, which holds the reaper's lock and reads, and as many of the process that cancels statements for it.
BEAT_CONNECTIONS = 4


def connections_needed(celery: Celery, pools: tuple[Pool, ...], web: Web) -> int:
    """The most connections to PostgreSQL that all tiers together can open.

    A worker's child has its pool, and one more while Celery stores a state in PostgreSQL (it uses no pool in a child); a
    worker's parent process has one to end what its children cannot, and one for states like a child; beat the reaper's, the
    init job three (its lock, Superset's, the migrations'); a rolling update adds one web pod.
    """
    states = 1 if celery.result_backend == "postgresql" else 0
    child, parent = celery.connections.most + states, 1 + states
    workers = sum(pool.max_workers * (pool.concurrency * child + parent) for pool in pools)
    return workers + (web.max_replicas + 1) * web.processes * web.connections.most + BEAT_CONNECTIONS + 3
