"""The registry of chart jobs: what was submitted and has not told its browser how it ended.

A chart's asynchronous job leaves no row in the metadata database, so without a registry nobody knows of one that was lost.
(For SQL Lab the query table is the registry.) It is a hash in the coordination Redis, a field a job, beside a set of the
admitted jobs of each principal. A job is registered before its task is sent, and removed with its last event.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runtime.environment import coordination, counters
from topology import metric_names

logger = logging.getLogger(__name__)

#: The hash: job id → JSON of a `ChartJob`.
JOBS = "jobs"
#: Starts the name of the set of one principal's job ids.
JOBS_OF = "jobs-of"
#: Starts the name of the set of one principal's requests that wait for an analytic database, by the time at which each is over.
REQUESTS_OF = "requests-of"
#: Such a set outlives the last job added to it by this, should nobody ever remove it.
SET_SECONDS = 24 * 3600
#: Fields of one reply.
FIELDS = 500


@dataclass(frozen=True)
class ChartJob:
    """A chart job. `metadata` is what Superset answered to the browser: channel, job and user ids, and no guest token.

    `user` is the principal that it counts for; `submitted_at` is in seconds since the epoch.
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


def principal(user_id: int | None, guest_token: Mapping[str, Any] | None, visitor: str) -> str:
    """Whom a query counts for: a user, an embedded guest's token, or else the `visitor` who is neither.

    A guest's token is the same in each of his requests, whether his browser keeps cookies or not.
    """
    if user_id is not None:
        return f"user:{user_id}"
    if guest_token is not None:
        return "guest:" + hashlib.sha256(json.dumps(guest_token, sort_keys=True, default=str).encode()).hexdigest()
    return f"visitor:{visitor}"


def register(job: ChartJob) -> None:
    """Have `job` found where it is lost; it counts for nobody yet. RedisError where that cannot be."""
    coordination.client().hset(coordination.key(JOBS), job.job_id, json.dumps(asdict(job)))


def admit(job: ChartJob) -> None:
    """Register `job`, and count it for its principal; RedisError where that cannot be, and then it must not be sent."""
    mine = coordination.key(JOBS_OF, job.user)
    pipeline = coordination.client().pipeline()
    pipeline.hset(coordination.key(JOBS), job.job_id, json.dumps(asdict(job)))
    pipeline.sadd(mine, job.job_id)
    pipeline.expire(mine, SET_SECONDS)
    pipeline.execute()


#: What is no job leaves the hash alone: whose it was is not known.
_REMOVE = """
local job = redis.call('HGET', KEYS[1], ARGV[1])
if not job then return 0 end
local read, value = pcall(cjson.decode, job)
if read and type(value) == 'table' and type(value.user) == 'string' then redis.call('SREM', ARGV[2] .. value.user, ARGV[1]) end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


def remove(metadata: Mapping[str, Any]) -> bool:
    """Forget the job of this metadata; whether it was registered. RedisError where Redis does not answer."""
    client: Any = coordination.client()
    arguments = (coordination.key(JOBS), str(metadata["job_id"]), coordination.key(JOBS_OF, ""))
    return bool(client.eval(_REMOVE, 1, *arguments))


def find(job_id: str) -> ChartJob | None:
    """The job with this id, None where it is not registered (any more). RedisError where Redis does not answer."""
    value = coordination.client().hget(coordination.key(JOBS), job_id)
    return _read(value) if value else None


def in_flight(user: str) -> int:
    """How many admitted jobs and waiting requests of `user`, a principal, have not ended."""
    pipeline = coordination.client().pipeline(transaction=False)
    pipeline.scard(coordination.key(JOBS_OF, user))
    pipeline.zcount(coordination.key(REQUESTS_OF, user), time.time(), "+inf")
    return sum(map(int, pipeline.execute()))


def begin_request(user: str, request: str, seconds: float) -> None:
    """Count a request of `user` that waits for an analytic database until `end_request`, or for `seconds` without it."""
    waiting, now = coordination.key(REQUESTS_OF, user), time.time()
    pipeline = coordination.client().pipeline()
    pipeline.zremrangebyscore(waiting, "-inf", now)
    pipeline.zadd(waiting, {request: now + seconds})
    pipeline.expire(waiting, SET_SECONDS)
    pipeline.execute()


def end_request(user: str, request: str) -> None:
    """Count it no more. RedisError where Redis does not answer."""
    coordination.client().zrem(coordination.key(REQUESTS_OF, user), request)


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
