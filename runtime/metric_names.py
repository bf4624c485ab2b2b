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
