"""The registry of chart jobs: what was submitted and has not told its browser how it ended.

A chart's asynchronous job leaves no row in the metadata database, so without a registry nobody knows of one that was lost.
(For SQL Lab the query table is the registry.) It is a hash in the coordination Redis, a field a job, beside a set of the
jobs of each user. A job is added before its task is sent, and removed with its last event.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runtime.environment import coordination, counters
from topology import metric_names

logger = logging.getLogger(__name__)

#: The hash: job id → JSON of a `ChartJob`.
JOBS = "jobs"
#: Starts the name of the set of one user's job ids.
JOBS_OF = "jobs-of"
#: Such a set outlives the last job added to it by this, should nobody ever remove it.
SET_SECONDS = 24 * 3600
#: Fields of one reply.
FIELDS = 500


@dataclass(frozen=True)
class ChartJob:
    """A chart job. `metadata` is what Superset answered to the browser: channel, job and user ids, and no guest token.

    `user` is whose it is counted as; `submitted_at` is in seconds since the epoch.
    """

    metadata: Mapping[str, Any]
    task_id: str
    queue: str
    user: str
    submitted_at: float

    @property
    def job_id(self) -> str:
        """The id by which browser, lease and execution know it."""
        return str(self.metadata["job_id"])


def user_of(metadata: Mapping[str, Any]) -> str:
    """Whom a job is counted for: its user, or for guests and anonymous visitors the browser session (its channel)."""
    user_id = metadata.get("user_id")
    return f"channel:{metadata['channel_id']}" if user_id is None else f"user:{user_id}"


def add(job: ChartJob) -> None:
    """Register `job`; RedisError where that cannot be, and then it must not be sent."""
    mine = coordination.key(JOBS_OF, job.user)
    pipeline = coordination.client().pipeline()
    pipeline.hset(coordination.key(JOBS), job.job_id, json.dumps(asdict(job)))
    pipeline.sadd(mine, job.job_id)
    pipeline.expire(mine, SET_SECONDS)
    pipeline.execute()


def remove(metadata: Mapping[str, Any]) -> bool:
    """Forget the job of this metadata; whether it was registered. RedisError where Redis does not answer."""
    job_id = str(metadata["job_id"])
    pipeline = coordination.client().pipeline()
    pipeline.hdel(coordination.key(JOBS), job_id)
    pipeline.srem(coordination.key(JOBS_OF, user_of(metadata)), job_id)
    return bool(pipeline.execute()[0])


def find(job_id: str) -> ChartJob | None:
    """The job with this id, None where it is not registered (any more). RedisError where Redis does not answer."""
    value = coordination.client().hget(coordination.key(JOBS), job_id)
    return _read(value) if value else None


def in_flight(user: str, besides: str = "") -> int:
    """How many jobs of `user` (as `user_of` names one) have not ended, `besides` the one of this id."""
    pipeline = coordination.client().pipeline(transaction=False)
    pipeline.scard(coordination.key(JOBS_OF, user))
    pipeline.sismember(coordination.key(JOBS_OF, user), besides)
    count, among = pipeline.execute()
    return int(count) - int(among)


def registered() -> Iterator[ChartJob]:
    """Every job that has not ended. What cannot be read as one is removed: nobody could end it."""
    for field, value in coordination.client().hscan_iter(coordination.key(JOBS), count=FIELDS):
        job = _read(value)
        if job is not None and job.job_id.encode() == field:
            yield job
        else:
            logger.warning("the registry of chart jobs has a value that is no job under %r: removed", field)
            coordination.client().hdel(coordination.key(JOBS), field)
            counters.count(metric_names.POISON, where="jobs")


def _read(value: bytes) -> ChartJob | None:
    try:
        job = ChartJob(**json.loads(value))
        # All that ending a job needs.
        known = job.job_id and job.metadata["channel_id"] and job.task_id and float(job.submitted_at)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return job if known else None
