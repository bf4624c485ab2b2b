"""The rules that hold in every topology: each a function from settings and topology to the problems it finds.

They speak of the keys of the stack file, since that is what a person can change. The same rules stand once more as policies,
on what is really deployed. Sharing of cache databases, prefixes and secrets between web and workers (the ninth invariant of
the design) needs no rule: both read one topology. What only one platform refuses is a rule of that platform.
"""

from __future__ import annotations

from collections.abc import Iterator

from topology.invariants import (
    caching,
    celery,
    databases,
    postgres,
    redis,
    sign_on,
    superset,
    tenant_pools,
    tenants,
    tls,
    web,
    workers,
)
from topology.model import Topology
from topology.platforms import platform_of
from topology.problems import Problem
from topology.rule import Rule
from topology.settings import Settings

RULES: tuple[Rule, ...] = (
    celery.queues_have_listeners,
    celery.names_are_unique,
    celery.limits_are_ordered,
    celery.beat_runs_where_needed,
    redis.broker_never_evicts,
    redis.redis_memory_fits,
    redis.existing_redis_is_complete,
    redis.tenants_have_a_broker_apart,
    postgres.connections_fit,
    postgres.postgres_is_complete,
    tls.certificates_are_complete,
    web.replicas_are_a_range,
    web.route_is_complete,
    workers.requests_hold,
    workers.workers_are_a_range,
    workers.children_fit,
    caching.spilled_results_are_kept,
    databases.sample_has_no_uri,
    databases.kept_connections_only_read,
    databases.drivers_are_in_the_image,
    superset.flags_are_known,
    superset.settings_are_the_teams,
    superset.own_settings_are_not_supersets,
    superset.variables_are_the_teams,
    sign_on.one_way_to_sign_on,
    sign_on.sign_on_is_safe,
    sign_on.secrets_are_where_the_platform_looks,
    tenants.tenants_are_recognised,
    tenants.recognisers_are_of_one_tenant,
    tenants.tenants_databases_exist,
    tenants.keys_fit_the_kind_of_pool,
    tenants.tenants_limits_are_ordered,
    tenant_pools.quotas_hold_the_workers,
    tenant_pools.shared_pools_can_be_fair,
    tenant_pools.urgent_queries_have_a_queue,
    tenant_pools.budgets_can_be_kept,
)


def check(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Every invariant that `topology`, built from `settings`, breaks."""
    for rule in (*RULES, *platform_of(settings.platform).rules):
        yield from rule(settings, topology)
