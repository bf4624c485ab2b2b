"""Names of the metrics: the exporter serves them, scalers, rules and the dashboard ask for them, docs/metrics.md says what they
mean.
"""

from __future__ import annotations

#: The label that every metric of a queue has.
QUEUE_LABEL = "queue_name"
#: Header of a message: when it was sent, in seconds since the epoch.
SENT_HEADER = "superset_async_sent"
#: Messages that wait in the broker.
DEPTH = "celery_queue_depth"
#: Messages that a worker has taken and not acknowledged.
IN_FLIGHT = "celery_queue_in_flight"
#: The sum of both.
MESSAGES = "celery_queue_messages"
#: Seconds since the one in flight for longest was delivered.
OLDEST_IN_FLIGHT = "celery_queue_in_flight_oldest_seconds"
#: Seconds since the message that waits for longest was sent.
OLDEST_WAITING = "celery_queue_waiting_oldest_seconds"
#: Workers that listen to the queue now, how many tasks they execute at once, and the least and most workers of its pools.
WORKERS = "celery_queue_workers"
WORKER_SLOTS = "celery_queue_worker_slots"
WORKERS_EXPECTED = "celery_queue_workers_expected"
WORKERS_MAX = "celery_queue_workers_max"
#: Whether the last look at the broker succeeded.
UP = "celery_exporter_up"
#: Looks that failed (served as `…_total`).
ERRORS = "celery_exporter_errors"
#: Seconds that the last look took.
LOOK_SECONDS = "celery_exporter_look_seconds"
#: Submissions that were not taken, by reason and queue.
REFUSED = "superset_async_refused_total"
#: Messages in a queue beyond which a submission is refused.
BOUND = "superset_async_queue_bound"
#: What the reaper put back or ended, by what it was.
REAPED = "superset_async_reaped_total"
#: What was no message, job or value of ours, by where it was found.
POISON = "superset_async_poison_total"
#: Times that a worker began a query, by kind (sql, chart) and attempt.
ATTEMPTS = "superset_async_attempts_total"
#: Deliveries of messages that were not executed, by kind and reason: ended, running, database_away.
DELIVERIES_IGNORED = "superset_async_deliveries_ignored_total"
#: When the reaper last looked (Unix time).
REAPED_AT = "superset_async_reaper_last_run_timestamp"
#: Tasks sent, by task_name, queue and tenant.
TASKS_SUBMITTED = "celery_task_submitted_total"
#: Tasks that have ended, by task_name, queue, tenant, status (success, failure, stopped) and reason (of a failure).
TASKS_COMPLETED = "celery_task_completed_total"
#: Seconds that tasks took in a worker, by task_name, queue and tenant: a histogram, its counters as `_bucket`, `_sum`, `_count`.
TASK_SECONDS = "celery_task_duration_seconds"
#: Seconds from the sending of a message to the beginning of its task, by queue and tenant: a histogram.
WAIT_SECONDS = "celery_task_queuing_time_seconds"
#: Messages that the broker delivered again, by queue.
REDELIVERED = "celery_task_redelivered_total"
#: Attempts that ended with a transient error and are tried again, by kind.
RETRIES = "superset_async_retries_total"
#: Seconds that reading and writing a result took, by cache and operation (read, write): a histogram.
RESULTS_SECONDS = "superset_async_results_seconds"
#: Reads and writes of results that failed, by cache and operation.
RESULTS_FAILED = "superset_async_results_failed_total"
#: Requests for a chart that found its data kept, or not, by cache and result (hit, miss).
CACHE_READS = "superset_async_cache_reads_total"
#: Values that were not signed for their key, results larger than may be kept, and those kept in a file, by cache.
CACHE_REFUSED = "superset_async_cache_refused_total"
CACHE_TOO_LARGE = "superset_async_cache_too_large_total"
CACHE_SPILLED = "superset_async_cache_spilled_total"
#: Charts computed anew while their data could still be served.
CACHE_REFRESHED = "superset_async_cache_refreshed_total"
#: Asynchronous charts that followed a job under way.
CHARTS_FOLLOWED = "superset_async_chart_followers_total"
#: Charts that waited for another request's computation, and those that it saved from computing.
CACHE_WAITED = "superset_async_cache_waited_total"
CACHE_SAVED = "superset_async_cache_saved_total"
#: Seconds for which the query of SQL Lab that has run for longest had run at the reaper's last look.
OLDEST_RUNNING = "superset_async_query_running_oldest_seconds"
#: The longest that a task may take: its hard limit in seconds, by queue.
TIME_LIMIT = "superset_async_time_limit_seconds"
#: Memory that the broker's server uses and may use (0: no bound), and keys that it has evicted.
BROKER_MEMORY = "redis_memory_used_bytes"
BROKER_MEMORY_MAX = "redis_memory_max_bytes"
BROKER_EVICTED = "redis_evicted_keys_total"
#: Whether its last snapshot, and its last write to its append-only file, succeeded.
BROKER_SNAPSHOT = "redis_rdb_last_bgsave_status"
BROKER_AOF = "redis_aof_last_write_status"
#: Events of Superset's own stats logger, by name, and how long what it times took, in seconds: a summary (`_sum`, `_count`).
STATS = "superset_stats_total"
STATS_SECONDS = "superset_stats_seconds"
#: Requests that the web tier has answered, by method, route (Flask's rule) and status, and how long that took, in seconds, by
#: method and route: a histogram.
REQUESTS = "superset_web_requests_total"
REQUEST_SECONDS = "superset_web_request_duration_seconds"
#: Series that were counted and are not served: of queues and tenants that are gone, or beyond the bound.
SERIES_OMITTED = "celery_exporter_series_omitted"
