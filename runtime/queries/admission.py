"""Whether a submission is taken: bounded, registered, and never left `pending` by a broker that took nothing.

As shipped (Superset 6.1) queues have no end, and a query that the broker refused stays `pending`. Here a submission is refused
with 429 beyond the stack's bounds and with 503 where the broker does not take it.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.broker import queues
from runtime.environment import counters, process_topology
from runtime.queries.interfaces import Submission
from topology import metric_names
from topology.settings.resilience import Resilience

logger = logging.getLogger(__name__)

#: Superset's kind of error for all refusals: its pages show the message as it is.
ERROR_TYPE = "ASYNC_WORKERS_ERROR"
#: What its pages put before "Error" in the title, where an error's `extra` has it as engine_name; else "DB engine".
TITLE = "Query"


@dataclasses.dataclass(eq=False)
class Refusal(Exception):
    """Why a submission was not taken: HTTP status, what the user reads, and after how many seconds to try again."""

    reason: str
    queue: str
    status: int
    message: str
    retry_after_seconds: int

    def errors(self) -> list[dict[str, Any]]:
        """The errors of the answer, as Superset writes them."""
        extra = {
            "reason": self.reason,
            "queue": self.queue,
            "retry_after_seconds": self.retry_after_seconds,
            "engine_name": TITLE,
        }
        return [{"message": self.message, "error_type": ERROR_TYPE, "level": "error", "extra": extra}]


def beyond(bounds: Resilience, queue: str, waiting: int, in_flight: int) -> Refusal | None:
    """What refuses one more query, where `waiting` messages are in its queue and the user has `in_flight` others."""
    if in_flight >= bounds.max_in_flight_per_user:
        return Refusal(
            reason="user_in_flight",
            queue=queue,
            status=429,
            message=f"You have {in_flight} queries waiting or running, and a user may have {bounds.max_in_flight_per_user}. "
            "This one was not started. Wait until one has ended, or stop one, and run it again.",
            retry_after_seconds=5,
        )
    if waiting >= bounds.max_queued:
        return Refusal(
            reason="queue_full",
            queue=queue,
            status=429,
            message=f"{waiting} queries wait in queue {queue!r} already, and it takes {bounds.max_queued}. This one was not "
            "started. Run it again in a minute; an administrator can add workers to the queue.",
            retry_after_seconds=60,
        )
    return None


def too_many_at_once(queue: str) -> Refusal:
    """The refusal of a submission whose turn does not come: others of the same principal are submitted at the same moment."""
    return Refusal(
        reason="user_in_flight",
        queue=queue,
        status=429,
        message="Many of your queries are being submitted at this moment, and they are counted one after the other. This one was "
        "not started. Run it again in a few seconds.",
        retry_after_seconds=5,
    )


def no_thread(most: int) -> Refusal:
    """The refusal of a request that would wait for an analytic database, where `most` of its process do so."""
    return Refusal(
        reason="web_full",
        queue="web",
        status=503,
        message=f"This process of the web tier waits for databases in {most} requests already, or in all but one of those for "
        "you, and keeps its other threads free. Nothing was executed. Try again in a few seconds, or run a query "
        "asynchronously.",
        retry_after_seconds=5,
    )


def broker_refused(error: BaseException, queue: str) -> Refusal:
    """The refusal that follows from the broker's `error`; its details are in the log, since they hold addresses."""
    full = "maxmemory" in str(error)
    return Refusal(
        reason="broker_full" if full else "broker_down",
        queue=queue,
        status=503,
        message=("The broker's memory is full" if full else "The broker does not answer")
        + ", so this query could not be handed to a worker. It was not started. Run it again in a minute; if that does not "
        "help, tell an administrator.",
        retry_after_seconds=10,
    )


def unrecorded() -> Refusal:
    """The refusal that follows from a metadata database without room; its own words hold files and SQL."""
    return Refusal(
        reason="metadata_full",
        queue="",
        status=503,
        message="The disk of the metadata database is full, so this query could not be written down. It was not started. Tell an "
        "administrator, and run it again when there is room.",
        retry_after_seconds=60,
    )


def submit(submission: Submission) -> Any:
    """Send it, and return what Superset wants of that; a Refusal where it is not taken."""
    _check(submission)
    submission.record()
    try:
        return submission.send()
    except Exception as error:
        logger.exception("%s could not be sent to queue %r", submission.name, submission.queue)
        submission.withdraw()
        raise broker_refused(error, submission.queue) from error


def _check(submission: Submission) -> None:
    """Refuse where the queue or the user has enough, and where the broker is silent; a bound that cannot be read never refuses.

    The bounds are read from the broker's server. Whoever went on after one silence would wait for it at each step to come: a
    submission is blocked for one of redis-py's timeouts (`redis_databases`), and then refused.
    """
    queue = submission.queue
    try:
        refusal = beyond(process_topology.current().resilience, queue, queues.depth(queue), submission.in_flight())
    except Refusal as full:
        refusal = full
    except RedisTimeoutError as silent:
        logger.warning("%s was not sent to queue %r: the broker is silent", submission.name, queue)
        raise broker_refused(silent, queue) from silent
    except Exception:
        logger.warning("the bounds of queue %r could not be checked", queue, exc_info=True)
        return
    if refusal is not None:
        counters.count(metric_names.REFUSED, reason=refusal.reason, queue=queue)
        raise refusal
