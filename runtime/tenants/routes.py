"""Where the router may send a task, and whether somebody listens there: asked when a process starts."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology


def problems(topology: Topology) -> list[str]:
    """Every route of `topology` that would leave a task waiting for ever, or stop a worker; empty for a good one."""
    declared = set(topology.celery.queues)
    heard = {queue for pool in topology.pools for queue in pool.queues}
    found: list[str] = []
    for who, queue in _routes(topology):
        if queue not in declared:
            found.append(f"{who} goes to queue {queue!r}, which is not declared")
        elif queue not in heard:
            found.append(f"{who} goes to queue {queue!r}, which no pool listens to")
    pools = {pool.name: pool for pool in topology.pools}
    for tenant in topology.tenants:
        pool = pools.get(tenant.pool)
        if pool is None or tenant.queue not in pool.queues:
            found.append(f"tenant {tenant.id!r} is to be served by pool {tenant.pool!r}, which does not listen to its queue")
    found += [
        f"pool {pool.name!r} listens to queue {queue!r}, which is not declared"
        for pool in topology.pools
        for queue in pool.queues
        if queue not in declared
    ]
    return found


def _routes(topology: Topology) -> Iterator[tuple[str, str]]:
    yield "what no tenant claims", topology.celery.default_queue
    if topology.urgent:
        yield "what is urgent", topology.urgent.queue
    for tenant in topology.tenants:
        yield f"tenant {tenant.id!r}", tenant.queue
