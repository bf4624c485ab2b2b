"""The rules about tenants: who is recognised as whose, and that what a tenant asks for can be given to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from topology.model import Pool, Tenant, Topology
from topology.problems import Problem, did_you_mean
from topology.quantities import format_cpu, format_memory
from topology.rule import Rule
from topology.settings import Settings, TenantSettings

#: Seconds beyond the soft limit that a stopping worker needs to store a result and close its connections.
GRACE_MARGIN_SECONDS = 30
#: Queues, and pools of the same names, that the multi-tenant topology always has.
ALWAYS = ("default", "priority")
HOURS_OF_A_MONTH = 730
#: Keys of the broker's own, which a queue's list would overwrite.
RESERVED = ("unacked",)
#: Keys that mean something for one kind of pool only.
_FOR_DEDICATED = ("concurrency", "min_workers", "max_workers", "quota")
_FOR_SHARED = ("in_flight",)


def tenants_are_recognised(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Each tenant has at least one recogniser, and none is empty."""
    for tenant_id, tenant in settings.tenants.items():
        recognisers = _recognisers(tenant)
        if not any(recognisers.values()):
            yield Problem(
                f"tenants.{tenant_id}",
                tenant_id,
                "has no users, roles, databases or guests: no query would ever be recognised as its",
                "Give at least one of them",
                also=tuple(f"tenants.{tenant_id}.{kind}" for kind in recognisers),
            )
        for kind, values in (recognisers | {"guests": tuple(guest.value for guest in tenant.guests)}).items():
            for value in values:
                if not value:
                    yield Problem(f"tenants.{tenant_id}.{kind}", "''", "must not be empty", "Write the name, or take it out")


def recognisers_are_of_one_tenant(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """No user, role, database or guest's claim is listed twice or is two tenants'."""
    seen: dict[str, list[tuple[str, str]]] = {}
    for tenant_id, tenant in settings.tenants.items():
        for kind, values in _recognisers(tenant).items():
            for value in values:
                known = seen.setdefault(kind, [])
                for other, owner in known:
                    if value == other or (kind == "guests" and _overlap(value, other)):
                        same = owner == tenant_id
                        yield Problem(
                            f"tenants.{tenant_id}.{kind}",
                            value,
                            f"is listed twice{'' if value == other else f' (by {other})'}"
                            if same
                            else f"is tenant {owner!r}'s already{'' if value == other else f' (by {other})'}",
                            "List it once" if same else "Each is one tenant's: take it out of one of them",
                            also=(f"tenants.{owner}.{kind}",),
                        )
                        break
                known.append((value, tenant_id))


def _recognisers(tenant: TenantSettings) -> dict[str, tuple[str, ...]]:
    return {
        "users": tenant.users,
        "roles": tenant.roles,
        "databases": tenant.databases,
        "guests": tuple(f"{guest.claim}={guest.value}" for guest in tenant.guests),
    }


def _overlap(one: str, other: str) -> bool:
    """Whether a guest can match both patterns; a trailing * is any ending."""
    first, second = one.removesuffix("*"), other.removesuffix("*")
    if one.endswith("*") and second.startswith(first):
        return True
    return other.endswith("*") and first.startswith(second)


def tenants_databases_exist(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Where the stack declares databases, a tenant's is one of them."""
    for tenant_id, tenant in settings.tenants.items():
        for name in tenant.databases:
            if settings.databases and name not in settings.databases:
                yield Problem(
                    f"tenants.{tenant_id}.databases",
                    name,
                    "is no database of this stack",
                    f"Declare databases.{name}, or correct the name. {did_you_mean(name, tuple(settings.databases))}",
                    also=("databases", f"databases.{name}"),
                )


def keys_fit_the_kind_of_pool(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A shared tenant sizes no workers; a dedicated one shares none. Names are not the broker's own keys."""
    for tenant_id, tenant in settings.tenants.items():
        wrong, right = (_FOR_DEDICATED, "dedicated") if tenant.pool == "shared" else (_FOR_SHARED, "shared")
        for key in wrong:
            if getattr(tenant, key) is not None:
                yield Problem(
                    f"tenants.{tenant_id}.{key}",
                    str(getattr(tenant, key)) if key != "quota" else "…",
                    f"means nothing for pool: {tenant.pool}",
                    f"Take it out, or set tenants.{tenant_id}.pool: {right}",
                    also=(
                        f"tenants.{tenant_id}.pool",
                        f"tenants.{tenant_id}.quota.cpu",
                        f"tenants.{tenant_id}.quota.memory",
                    ),
                )
    for key, names in (("tenants", tuple(settings.tenants)), ("celery.queues", settings.celery.queues)):
        for name in names:
            if name in RESERVED:
                where = f"tenants.{name}" if key == "tenants" else key
                yield Problem(where, name, "is a key of the broker's own, which this queue would overwrite", "Rename it")


def tenants_limits_are_ordered(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A tenant's statement_timeout < soft < hard limit < visibility timeout; whoever runs its tasks may finish them."""
    visibility = settings.celery.visibility_timeout
    for tenant in topology.tenants:
        said = settings.tenants[tenant.id]
        limits: tuple[tuple[str, str, int], ...] = (
            ("statement_timeout", "statement_timeout", tenant.statement_timeout_seconds),
            ("soft_time_limit", "celery.soft_time_limit", tenant.soft_time_limit_seconds),
            ("time_limit", "celery.time_limit", tenant.time_limit_seconds),
        )
        for (lower, lower_of_all, less), (upper, upper_of_all, more) in itertools.pairwise(limits):
            # Where the tenant says neither, the rule about everybody's limits has said it.
            if less >= more and (getattr(said, lower) or getattr(said, upper)):
                key, default = (lower, upper_of_all) if getattr(said, lower) else (upper, lower_of_all)
                relation, other, value = ("below", upper, more) if key == lower else ("above", lower, less)
                yield Problem(
                    f"tenants.{tenant.id}.{key}",
                    str(getattr(said, key)),
                    f"must be {relation} the tenant's {other} ({value})",
                    f"Change it, or set tenants.{tenant.id}.{other} (which is {default} where it is left out)",
                    also=(f"tenants.{tenant.id}.{other}", default, "statement_timeout"),
                )
        if said.time_limit and said.time_limit >= visibility:
            yield Problem(
                f"tenants.{tenant.id}.time_limit",
                str(said.time_limit),
                f"must be below celery.visibility_timeout ({visibility}): a task still running would be delivered again",
                "Lower it, or raise celery.visibility_timeout",
                also=("celery.visibility_timeout",),
            )
        if said.soft_time_limit:
            yield from _grace(settings, topology, tenant)


def _grace(settings: Settings, topology: Topology, tenant: Tenant) -> Iterator[Problem]:
    least = tenant.soft_time_limit_seconds + GRACE_MARGIN_SECONDS
    # Urgent queries go to the urgent queue, and what waits when a tenant is removed to the default one.
    queues = {tenant.queue, topology.celery.default_queue, *([topology.urgent.queue] if topology.urgent else [])}
    for pool in topology.pools:
        if queues & set(pool.queues) and pool.grace_period_seconds < least:
            own = pool.name in settings.pools and settings.pools[pool.name].grace_period is not None
            key = f"pools.{pool.name}.grace_period" if own else "workers.grace_period"
            yield Problem(
                f"tenants.{tenant.id}.soft_time_limit",
                str(tenant.soft_time_limit_seconds),
                f"must be at most {key} - {GRACE_MARGIN_SECONDS} = {pool.grace_period_seconds - GRACE_MARGIN_SECONDS}: "
                f"a stopping worker of pool {pool.name!r} would be killed in mid-query",
                f"Lower it, or raise {key} to {least}",
                also=(key, "workers.grace_period", "pools", f"pools.{pool.name}"),
            )


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


def tenants_have_a_broker_apart(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """With tenants the broker has a server of its own: queues come and go there without a change to the server."""
    if settings.tenants and settings.redis.cache is None:
        yield Problem(
            "redis.cache",
            "null",
            "must be a server of its own where there are tenants: on a shared server the broker's user is granted each queue "
            "by name, so a new tenant restarts it, and the queries that wait when one is removed are out of reach",
            "Use topology: multi-tenant (or enterprise), or give redis.cache",
            also=("tenants", "topology"),
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


RULES: tuple[Rule, ...] = (
    tenants_are_recognised,
    recognisers_are_of_one_tenant,
    tenants_databases_exist,
    keys_fit_the_kind_of_pool,
    tenants_limits_are_ordered,
    quotas_hold_the_workers,
    shared_pools_can_be_fair,
    urgent_queries_have_a_queue,
    tenants_have_a_broker_apart,
    budgets_can_be_kept,
)
