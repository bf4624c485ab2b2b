"""Names of the metrics of queues: the exporter serves them, scalers ask for them, docs/metrics.md says what they mean."""

from __future__ import annotations

#: The label that every metric of a queue has.
QUEUE_LABEL = "queue_name"
#: Messages that wait in the broker.
DEPTH = "celery_queue_depth"
#: Messages that a worker has taken and not acknowledged.
IN_FLIGHT = "celery_queue_in_flight"
#: The sum of both.
MESSAGES = "celery_queue_messages"
#: Seconds since the one in flight for longest was delivered.
OLDEST_IN_FLIGHT = "celery_queue_in_flight_oldest_seconds"
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
#: Tasks that a worker has ended, by task_name, queue, tenant and status (as outcomes of executions are called).
TASKS_COMPLETED = "celery_task_completed_total"
#: Seconds that tasks took in a worker, by task_name, queue and tenant: a histogram, its counters as `_bucket`, `_sum`, `_count`.
TASK_SECONDS = "celery_task_duration_seconds"
