"""Asynchronous charts that are the same: one job, the leader, is sent; the others follow it and end when it ends.

A follower has no task and holds no worker. Whoever tells that the leader has ended, its worker or who found it lost, tells
its followers too, because they are found by the leader's id.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from runtime import coordination
from runtime.caching import charts
from runtime.tenancy.identity import current_tenant_id

logger = logging.getLogger(__name__)

FOLLOWED = "superset_async_chart_followers_total"
#: A leader that never ends is forgotten after this long, with its followers: as long as its browser's events are kept.
KEPT_SECONDS = 24 * 3600

#: KEYS: who leads. ARGV: my job, myself as a follower, how long others may join, prefixes of followers and of what a job
#: leads, how long both are kept. Returns the leader, or nothing where that is me now.
_JOIN = """
local leader = redis.call('GET', KEYS[1])
if leader then
  redis.call('RPUSH', ARGV[4] .. leader, ARGV[2])
  redis.call('EXPIRE', ARGV[4] .. leader, ARGV[6])
  return leader
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('SET', ARGV[5] .. ARGV[1], KEYS[1], 'EX', ARGV[6])
return false
"""
#: KEYS: what the job leads, its followers. ARGV: the job. From here on nobody joins it. Returns its followers.
_CLOSE = """
local leads = redis.call('GET', KEYS[1])
if leads and redis.call('GET', leads) == ARGV[1] then redis.call('DEL', leads) end
return redis.call('LRANGE', KEYS[2], 0, -1)
"""


@dataclass(frozen=True)
class Follower:
    """A job that waits for another's end: its metadata, and where its own result is then fetched."""

    metadata: Mapping[str, Any]
    result_url: str


def join(identity: str, follower: Follower, seconds: int) -> str | None:
    """The id of the job that already computes `identity`, which `follower` now follows; None where it leads itself.

    Others may join it for `seconds`: a leader that died unnoticed must not gather followers for ever.
    """
    job_id = str(follower.metadata["job_id"])
    leader = coordination.client().eval(
        _JOIN,
        1,
        coordination.key("chart", identity),
        job_id,
        json.dumps([follower.metadata, follower.result_url]),
        seconds,
        coordination.key("followers", ""),
        coordination.key("leads", ""),
        KEPT_SECONDS,
    )
    if leader is None:
        return None
    coordination.count(FOLLOWED)
    return cast(bytes, leader).decode()


def close(job_id: str) -> list[Follower]:
    """The followers of a job that has ended; it gets no more. They are there until `forget`, should telling them fail."""
    keys = coordination.key("leads", job_id), coordination.key("followers", job_id)
    found = cast("list[bytes]", coordination.client().eval(_CLOSE, 2, *keys, job_id))
    return [Follower(*json.loads(item)) for item in found]


def forget(job_id: str) -> None:
    """All followers of the job have been told."""
    coordination.client().delete(coordination.key("leads", job_id), coordination.key("followers", job_id))


class SharedTask:
    """Superset's task of a chart, sent only where no job that computes the same for the same tenant is under way.

    What is the same is told by the cache keys that this request has just looked for in vain, so a forced refresh, which does
    not look, always has its own job. `join_seconds`: how long others may follow a job. `end`: ends a job's followers.
    """

    def __init__(self, task: Any, join_seconds: int, end: Callable[[dict[str, Any], str, dict[str, Any]], None]) -> None:
        self._task = task
        self._join_seconds = join_seconds
        self._end = end

    def delay(self, job: dict[str, Any], form: dict[str, Any]) -> None:
        """Follow the job that there is, or send this one; raises what sending raises."""
        keys = charts.missed()
        metadata = {key: value for key, value in job.items() if key != "guest_token"}
        if keys and self._follows(metadata, keys, form):
            return
        try:
            self._task.delay(job, form)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._end(metadata, "error", {"errors": [{"message": str(error)}]})
            raise

    def _follows(self, job: dict[str, Any], keys: list[str], form: dict[str, Any]) -> bool:
        identity = charts.digest([current_tenant_id(), sorted(keys)])
        try:
            # By its own request it is fetched: two charts may show the same data differently.
            return join(identity, Follower(job, charts.keep_form(form)), self._join_seconds) is not None
        except Exception:
            logger.warning("a chart's job was sent without a look whether there is the same one", exc_info=True)
            return False
