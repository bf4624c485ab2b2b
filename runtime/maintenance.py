"""Tasks of this project's own, which beat sends. Imported only by Celery inside Superset, by its setting `imports`."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from runtime import live, queues
from runtime.executions import TABLE
from runtime.resilience import copies

logger = logging.getLogger(__name__)
_celery: Any = import_module("superset.extensions").celery_app


@_celery.task(name="superset_async.empty_retired_queues")
def empty_retired_queues() -> None:
    """Move what waits in queues that the stack no longer has to the default queue."""
    topology = live.topology()
    for queue, count in queues.of(topology).empty_retired(topology.celery.default_queue).items():
        logger.warning(
            "%d messages of queue %r, which is gone, are in queue %r now", count, queue, topology.celery.default_queue
        )


@_celery.task(name="superset_async.prune_executions")
def prune_executions(retention_period_days: int) -> None:
    """Delete rows of the table of executions that began longer ago, and copies of messages that are a day old."""
    session = import_module("superset.extensions").db.session
    copies.prune(session.connection())
    statement = f"DELETE FROM {TABLE} WHERE started_at < now() - make_interval(days => :days) AND ended_at IS NOT NULL"
    gone = session.execute(import_module("sqlalchemy").text(statement), {"days": retention_period_days})
    session.commit()
    logger.info("%d rows of %s pruned", gone.rowcount, TABLE)
