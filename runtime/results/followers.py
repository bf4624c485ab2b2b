"""Asynchronous charts that are the same: one job, the leader, is sent; the others follow it and end when it ends.

A follower has no task and holds no worker. Whoever tells that the leader has ended, its worker or who found it lost, tells
its followers too, because they are found by the leader's id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from runtime.environment import coordination, counters
from topology import metric_names

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
#: KEYS: what the job leads, its followers. ARGV: the job. From here on nobody joins it.
_SHUT = """
local leads = redis.call('GET', KEYS[1])
if leads and redis.call('GET', leads) == ARGV[1] then redis.call('DEL', leads) end
"""
#: The same, and returns its followers.
_CLOSE = _SHUT + "return redis.call('LRANGE', KEYS[2], 0, -1)"
#: The same where so many follow it as the second of ARGV says; returns whether that is so.
_CLOSE_IF = f"if redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then return 0 end {_SHUT} return 1"


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
    answer = coordination.client().eval(  # pyright: ignore[reportUnknownVariableType]
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
    leader = cast("bytes | None", answer)
    if leader is None:
        return None
    counters.count(metric_names.CHARTS_FOLLOWED)
    return leader.decode()


def close(job_id: str) -> list[Follower]:
    """The followers of a job that has ended; it gets no more. They are there until `forget`, should telling them fail."""
    return _read(cast("list[bytes]", coordination.client().eval(_CLOSE, 2, *_keys(job_id), job_id)))


def following(job_id: str) -> list[Follower]:
    """Who follows a job now. Raises what redis-py raises."""
    return _read(coordination.client().lrange(coordination.key("followers", job_id), 0, -1))


def close_if(job_id: str, count: int) -> bool:
    """Have nobody join a job any more, where `count` jobs follow it; False, and nothing done, where it has others."""
    closed = coordination.client().eval(_CLOSE_IF, 2, *_keys(job_id), job_id, count)  # pyright: ignore[reportUnknownVariableType]
    return bool(cast("int", closed))


def end(job_id: str, tell: Callable[[Follower], object]) -> None:
    """End the followers of a job that has ended: each is told, by `tell`, and then all are forgotten. What `tell` raises."""
    for follower in close(job_id):
        tell(follower)
    forget(job_id)


def forget(job_id: str) -> None:
    """All followers of the job have been told."""
    coordination.client().delete(*_keys(job_id))


def _keys(job_id: str) -> tuple[str, str]:
    """Of what a job leads, and of its followers."""
    return coordination.key("leads", job_id), coordination.key("followers", job_id)


def _read(items: Iterable[bytes]) -> list[Follower]:
    return [Follower(*json.loads(item)) for item in items]


def digest(value: object) -> str:
    """A name for plain data, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
