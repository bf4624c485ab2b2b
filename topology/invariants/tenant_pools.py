"""Rules about what tenants get: workers, shares, turns and budgets."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Pool, Topology
from topology.problems import Problem, did_you_mean
from topology.quantities import format_cpu, format_memory
from topology.settings import Settings

#: Queues, and pools of the same names, that the multi-tenant topology always has.
ALWAYS = ("default", "priority")
HOURS_OF_A_MONTH = 730


def quotas_hold_the_workers(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A quota has room for max_workers and for those that a rolling update adds, so that no update waits for ever."""
    for pool in topology.pools:
        if pool.quota is None or pool.tenant is None:
            continue
        pods = pool.max_workers + surge(pool)
        for key, have, request, written in (
            ("cpu", pool.quota.cpu_millis, pool.resources.cpu_request_millis, format_cpu),
            ("memory", pool.quota.memory_bytes, pool.resources.memory_request_bytes, format_memory),
        ):
            if have < pods * request:
                yield Problem(
                    f"tenants.{pool.tenant}.quota.{key}",
                    written(have),
                    f"is below {written(pods * request)}, which {pool.max_workers} workers (max_workers) and the "
                    f"{surge(pool)} that a rolling update adds request",
                    f"Raise it, or lower tenants.{pool.tenant}.max_workers",
                    also=(f"tenants.{pool.tenant}.max_workers", "workers.max_workers", "workers.resources"),
                )


def surge(pool: Pool) -> int:
    """Pods that a rolling update of `pool` may add: a quarter, rounded up as Kubernetes does."""
    return -(-pool.max_workers // 4)


def shared_pools_can_be_fair(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A pool that tenants share has a child for the others beside each tenant's, and holds no message that it does not run."""
    shared = [tenant for tenant in topology.tenants if settings.tenants[tenant.id].pool == "shared"]
    for pool in topology.pools:
        tenants = [tenant for tenant in shared if tenant.queue in pool.queues]
        if not tenants:
            continue
        because = f"which tenant {tenants[0].id!r} shares"
        own = settings.pools.get(pool.name)
        if pool.concurrency < 2:
            yield Problem(
                f"pools.{pool.name}.concurrency" if own and own.concurrency else "workers.concurrency",
                str(pool.concurrency),
                f"must be at least 2 in pool {pool.name!r}, {because}: one query would hold every slot of a worker",
                "Raise it, or give the tenant workers of its own (pool: dedicated)",
                also=(f"tenants.{tenants[0].id}.pool", f"pools.{pool.name}"),
            )
        if pool.prefetch_multiplier > 1:
            yield Problem(
                f"pools.{pool.name}.prefetch_multiplier"
                if own and own.prefetch_multiplier
                else "workers.prefetch_multiplier",
                str(pool.prefetch_multiplier),
                f"must be 1 in pool {pool.name!r}, {because}: what a worker holds in advance cannot wait its turn",
                "Set it to 1, or give the tenant workers of its own (pool: dedicated)",
                also=(f"tenants.{tenants[0].id}.pool", f"pools.{pool.name}"),
            )
        for tenant in tenants:
            in_flight = settings.tenants[tenant.id].in_flight
            if in_flight is not None and in_flight >= max(2, pool.concurrency):
                yield Problem(
                    f"tenants.{tenant.id}.in_flight",
                    str(in_flight),
                    f"must be below the concurrency of pool {pool.name!r} ({pool.concurrency}): it could hold every slot",
                    "Lower it, or raise the pool's concurrency",
                    also=(f"pools.{pool.name}.concurrency", "workers.concurrency"),
                )
    if shared and not settings.celery.acks_late:
        yield Problem(
            "celery.acks_late",
            "false",
            f"must be true where tenants share workers, as {shared[0].id!r} does: with early acknowledgement a worker "
            "takes one message more for each child than it runs",
            "Set it to true, or give the tenant workers of its own (pool: dedicated)",
            also=(f"tenants.{shared[0].id}.pool",),
        )


def urgent_queries_have_a_queue(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Urgent queries go to a queue that is declared and is not everybody's; the multi-tenant topology keeps its two queues."""
    declared = settings.celery.queues
    urgent = settings.urgent
    if urgent is not None:
        if urgent.queue not in declared:
            yield Problem(
                "urgent.queue",
                urgent.queue,
                "is not declared in celery.queues",
                f"Declare it, with a pool that listens, or set urgent: null. {did_you_mean(urgent.queue, declared)}",
                also=("celery.queues",),
            )
        elif urgent.queue == settings.celery.default_queue:
            yield Problem(
                "urgent.queue",
                urgent.queue,
                "is the default queue, where urgent queries pass nobody",
                "Name another queue, or set urgent: null",
                also=("celery.default_queue",),
            )
    if settings.topology == "multi-tenant":
        for name in ALWAYS:
            if name not in declared:
                yield Problem(
                    "celery.queues",
                    ", ".join(declared),
                    f"lacks {name!r}, which the multi-tenant topology always has",
                    "Add it",
                    also=("topology",),
                )


def budgets_can_be_kept(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Where there are budgets, workers cost something, and a budget is above what reserved workers cost at rest."""
    rates = settings.rates
    own = {pool.tenant: pool for pool in topology.pools if pool.tenant}
    for tenant in topology.tenants:
        if tenant.monthly_budget is None:
            continue
        key = f"tenants.{tenant.id}.monthly_budget"
        reserved = own[tenant.id].min_workers * HOURS_OF_A_MONTH * rates.worker_hour if tenant.id in own else 0
        if rates.worker_hour == 0:
            yield Problem(
                "rates.worker_hour",
                "0",
                f"makes every query free, and {key} is given",
                "Give the rate of a worker, or take the budget out",
                also=(key,),
            )
        elif tenant.monthly_budget < reserved:
            yield Problem(
                key,
                f"{tenant.monthly_budget:g}",
                f"is below what its min_workers cost at rest: {reserved:.0f} {rates.currency} a month",
                "Raise it, lower min_workers, or set pool: shared",
                also=("rates.worker_hour", f"tenants.{tenant.id}.min_workers", "workers.min_workers"),
            )
