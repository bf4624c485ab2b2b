"""Celery: broker, results, queues, routes, limits and schedule, the same in the web process, workers and beat.

Limits and routes take effect where a task is sent, so the web process needs them as much as a worker does.
"""

from __future__ import annotations

from functools import partial

from runtime.config import metadata
from runtime.config.objects import Crontab, Function
from runtime.environment import redis_databases
from runtime.environment.secrets import ConfigurationError, Secrets
from runtime.queries import retention
from runtime.superset.directory import SupersetDirectory
from runtime.tenants import routes
from runtime.tenants.router import LiveRouter, Router
from topology.model import ScheduledJob, Topology
from topology.settings.workers import Celery

#: Superset's own list, which a CELERY_CONFIG replaces whole, so it is restated; and our own tasks.
IMPORTS = (
    "superset.sql_lab",
    "superset.tasks.scheduler",
    "superset.tasks.thumbnails",
    "superset.tasks.cache",
    "superset.tasks.slack",
    "runtime.start.maintenance",
)
#: Superset's tasks that execute queries. Their decorators carry limits of their own (six hours for SQL Lab), which only an
#: annotation overrides.
QUERY_TASKS = ("sql_lab.get_sql_results", "load_chart_data_into_cache", "load_explore_json_into_cache")
#: For how long a new child of a worker may start.
CHILD_START_SECONDS = 60.0
#: What is called around them in a worker.
AROUND = "runtime.superset.execution:around"
#: What is called around those that delete rows by their age.
KEPT = "runtime.queries.retention:kept_days"
#: What a worker's parent makes of a message for them.
REQUEST = "runtime.queries.lost_children:LostChildRequest"
#: How a sender tries again to reach the broker.
RETRIES = {"max_retries": 1, "interval_start": 0.2, "interval_step": 0.3, "interval_max": 1}
#: A worker waits for its broker however long that takes: also for one that answers, and refuses (MISCONF, OOM, READONLY). As
#: shipped (Celery 5.6) such an answer ends the worker.
PATIENCE = {
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
}
#: A job of beat that no worker took within this time is dropped: the next one does the same work.
JOB_EXPIRES_SECONDS = 3600


def settings(topology: Topology, secrets: Secrets) -> dict[str, object]:
    """CELERY_CONFIG, with Celery's own lower-case names; ConfigurationError where a task could be routed to nobody."""
    if problems := routes.problems(topology):
        raise ConfigurationError(f"stack {topology.stack!r}: {'; '.join(problems)}. Make its topology again from the stack")
    return {"CELERY_CONFIG": config(topology, secrets)}


def config(topology: Topology, secrets: Secrets) -> dict[str, object]:
    """Celery's configuration."""
    celery = topology.celery
    return {
        "imports": IMPORTS,
        "timezone": "UTC",
        **_broker(topology, secrets),
        **_results(topology, secrets),
        **_queues(topology),
        **_limits(celery),
        "task_acks_late": celery.acks_late,
        # Without it a killed child's task is acknowledged all the same, and its query stays "running" for ever.
        "task_reject_on_worker_lost": celery.acks_late,
        "task_track_started": True,
        # As shipped, a new child that has not said within 4 s that it is up is killed; a busy machine needs longer.
        "worker_proc_alive_timeout": CHILD_START_SECONDS,
        "task_compression": None if celery.compression == "none" else celery.compression,
        "result_compression": None if celery.compression == "none" else celery.compression,
        "beat_schedule": {job.name: _entry(job) for job in topology.beat.jobs},
    }


def _broker(topology: Topology, secrets: Secrets) -> dict[str, object]:
    broker = redis_databases.database(topology, secrets, "broker")
    return {
        "broker_url": broker.url,
        "broker_transport_options": {
            "visibility_timeout": topology.celery.visibility_timeout_seconds,
            # Nothing here sends priorities, and each would be one more list a queue in every question to the broker: with
            # 51 queues a worker's question takes 0.27 ms instead of 0.08 (measured).
            "priority_steps": [0],
            **redis_databases.client_options(),
            **_sentinel_options(broker),
            # With Redis down a submission ends after these tries, with an error, instead of waiting with its web thread.
            **RETRIES,
        },
        **({"broker_use_ssl": broker.verification()} if broker.tls else {}),
        **PATIENCE,
        "task_publish_retry_policy": RETRIES,
        "visibility_timeout": topology.celery.visibility_timeout_seconds,
    }


def _results(topology: Topology, secrets: Secrets) -> dict[str, object]:
    celery = topology.celery
    common: dict[str, object] = {
        "result_expires": celery.result_expires_seconds,
        "result_backend_transport_options": {"visibility_timeout": celery.visibility_timeout_seconds},
    }
    if celery.result_backend == "postgresql":
        return {
            **common,
            "result_backend": f"db+{metadata.uri(topology, secrets)}",
            "database_engine_options": {
                "pool_pre_ping": True,
                "pool_recycle": celery.connections.recycle_seconds,
                "connect_args": metadata.connect_args("celery-results"),
            },
            "database_short_lived_sessions": True,
        }
    results = redis_databases.database(topology, secrets, "celery_results")
    return {
        **common,
        "result_backend": results.url,
        "override_backends": {
            "redis": "runtime.broker.result_backends:RedisBackend",
            "rediss": "runtime.broker.result_backends:RedisBackend",
            "sentinel": "runtime.broker.result_backends:SentinelBackend",
        },
        "result_backend_transport_options": {
            "visibility_timeout": celery.visibility_timeout_seconds,
            **_sentinel_options(results),
        },
        **({"redis_backend_use_ssl": results.verification()} if results.tls else {}),
        "redis_socket_connect_timeout": float(redis_databases.CONNECT_TIMEOUT_SECONDS),
        "redis_socket_timeout": float(redis_databases.SOCKET_TIMEOUT_SECONDS),
        "redis_socket_keepalive": True,
    }


def _sentinel_options(database: redis_databases.Database) -> dict[str, object]:
    if database.service is None:
        return {}
    return {"master_name": database.service, "sentinel_kwargs": database.sentinel_options()}


def _queues(topology: Topology) -> dict[str, object]:
    return {
        "task_queues": {name: {"exchange": name, "routing_key": name} for name in topology.celery.queues},
        "task_default_queue": topology.celery.default_queue,
        # A queue that is not declared has no listener: sending to it is an error, not a silent pile.
        "task_create_missing_queues": False,
        "task_routes": (LiveRouter(topology, partial(Router, directory=SupersetDirectory())),),
    }


def _limits(celery: Celery) -> dict[str, object]:
    limits = {"soft_time_limit": celery.soft_time_limit_seconds, "time_limit": celery.time_limit_seconds}
    return {
        "task_soft_time_limit": limits["soft_time_limit"],
        "task_time_limit": limits["time_limit"],
        "task_annotations": {
            **{task: {**limits, "@__call__": Function(AROUND), "Request": REQUEST} for task in QUERY_TASKS},
            **{task: {"@__call__": Function(KEPT)} for task in retention.PRUNE_TASKS},
        },
    }


def _entry(job: ScheduledJob) -> dict[str, object]:
    minute, hour, day_of_month, month, day_of_week = job.cron.split()
    return {
        "task": job.task,
        "schedule": Crontab(minute, hour, day_of_month, month, day_of_week),
        "kwargs": dict(job.kwargs),
        "options": {"expires": JOB_EXPIRES_SECONDS},
    }
