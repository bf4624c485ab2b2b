"""Rules about queues, and about the limits of what runs in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from topology.invariants.keys import pool_key
from topology.model import Topology
from topology.problems import Problem, did_you_mean
from topology.settings import Settings

#: Seconds beyond the soft limit that a stopping worker needs to store a result and close its connections.
GRACE_MARGIN_SECONDS = 30


def queues_have_listeners(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A queue that a task can be routed to has a pool listening; a pool listens only to declared queues."""
    declared = topology.celery.queues
    heard = {queue for pool in topology.pools for queue in pool.queues}
    for queue in declared:
        if queue not in heard:
            yield Problem(
                "celery.queues",
                queue,
                "is a queue that no worker pool listens to: its tasks would stay pending for ever",
                f"Add it to a pool's queues (pools.<name>.queues), or add a pool named {queue!r}",
                also=("pools",),
            )
    for pool in topology.pools:
        for queue in pool.queues:
            if queue not in declared:
                yield Problem(
                    f"pools.{pool.name}.queues",
                    queue,
                    "is not declared in celery.queues, so nothing is ever sent there",
                    f"Declare it in celery.queues. {did_you_mean(queue, declared)}",
                    also=("celery.queues",),
                )
    if topology.celery.default_queue not in declared:
        yield Problem(
            "celery.default_queue",
            topology.celery.default_queue,
            "is not declared in celery.queues",
            f"Declare it in celery.queues. {did_you_mean(topology.celery.default_queue, declared)}",
            also=("celery.queues",),
        )


def names_are_unique(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """No queue is declared twice, and a tenant shares its name with no queue or pool."""
    for queue, count in Counter(settings.celery.queues).items():
        if count > 1:
            yield Problem("celery.queues", queue, f"is declared {count} times", "Declare it once")
    for tenant in settings.tenants:
        for key, taken in (("celery.queues", settings.celery.queues), ("pools", tuple(settings.pools))):
            if tenant in taken:
                yield Problem(
                    f"tenants.{tenant}",
                    tenant,
                    f"is a name that {key} has already; a tenant gets a queue and a pool of its own name",
                    f"Rename the tenant, or take {tenant!r} out of {key}",
                    also=(key,),
                )


def limits_are_ordered(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """statement_timeout < soft limit < hard limit < visibility timeout, and grace period ≥ soft limit + 30 s."""
    celery = settings.celery
    if celery.soft_time_limit_seconds >= celery.time_limit_seconds:
        yield Problem(
            "celery.soft_time_limit",
            str(celery.soft_time_limit_seconds),
            f"must be below celery.time_limit ({celery.time_limit_seconds}): the task is killed before it is told to stop",
            "Lower it, or raise celery.time_limit",
            also=("celery.time_limit",),
        )
    if celery.time_limit_seconds >= celery.visibility_timeout_seconds:
        yield Problem(
            "celery.visibility_timeout",
            str(celery.visibility_timeout_seconds),
            f"must be above celery.time_limit ({celery.time_limit_seconds}): a task still running would be delivered again",
            "Raise it, or lower celery.time_limit",
            also=("celery.time_limit",),
        )
    timeouts = {"statement_timeout": settings.statement_timeout} | {
        f"databases.{name}.statement_timeout": database.statement_timeout
        for name, database in settings.databases.items()
        if database.statement_timeout is not None
    }
    for key, timeout in timeouts.items():
        if timeout >= celery.soft_time_limit_seconds:
            yield Problem(
                key,
                str(timeout),
                f"must be below celery.soft_time_limit ({celery.soft_time_limit_seconds}): only the database can end a statement",
                "Lower it, or raise celery.soft_time_limit",
                also=("celery.soft_time_limit", "statement_timeout"),
            )
    for pool in topology.pools:
        least = celery.soft_time_limit_seconds + GRACE_MARGIN_SECONDS
        if pool.grace_period_seconds < least:
            key = pool_key(settings, pool.name, "grace_period")
            yield Problem(
                key,
                str(pool.grace_period_seconds),
                f"must be at least celery.soft_time_limit + {GRACE_MARGIN_SECONDS} = {least}: "
                "a stopping worker would be killed in mid-query",
                "Raise it",
                also=("celery.soft_time_limit", "workers.grace_period", f"pools.{pool.name}"),
            )


def beat_runs_where_needed(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Celery's results on PostgreSQL are cleaned by a beat job (true by construction; kept so that it stays true)."""
    tasks = {job.task for job in topology.beat.jobs}
    if topology.celery.result_backend == "postgresql" and "celery.backend_cleanup" not in tasks:
        yield Problem("celery.result_backend", "postgresql", "needs the cleanup job of a beat", "Use redis")
