"""Rules about tenants: who is recognised as whose, and within which limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from topology.invariants.celery import GRACE_MARGIN_SECONDS
from topology.model import Tenant, Topology
from topology.problems import Problem, did_you_mean
from topology.settings import Settings, TenantSettings

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
                "has no users, roles, groups, databases or guests: no query would ever be recognised as its",
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
        "groups": tenant.groups,
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
    visibility = settings.celery.visibility_timeout_seconds
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
