"""Tasks of this project's own, which beat sends. Imported only by Celery inside Superset, by its setting `imports`."""

from __future__ import annotations

import logging

from celery import shared_task

from runtime.broker import queues
from runtime.environment import metadata_database, process_topology
from runtime.queries import executions, outbox

logger = logging.getLogger(__name__)


@shared_task(name="superset_async.empty_retired_queues")
def empty_retired_queues() -> None:
    """Move what waits in queues that the stack no longer has to the default queue."""
    topology = process_topology.current()
    for queue, count in queues.of(topology).empty_retired(topology.celery.default_queue).items():
        logger.warning(
            "%d messages of queue %r, which is gone, are in queue %r now", count, queue, topology.celery.default_queue
        )


@shared_task(name="superset_async.prune_executions")
def prune_executions(retention_period_days: int) -> None:
    """Delete rows of the table of executions that began longer ago, and copies of messages that are a day old."""
    with metadata_database.transaction() as connection:
        outbox.prune(connection)
        gone = executions.prune(connection, retention_period_days)
    logger.info("%d rows of %s pruned", gone, executions.TABLE)
