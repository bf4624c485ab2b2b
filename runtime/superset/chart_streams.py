"""The streams of chart events, written without Superset: how a chart's browser learns that its job is lost.

Writes what `AsyncQueryManager.update_job` writes (read and tested with Superset 6.1.0: the same bytes in the same streams).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

#: What the names of the streams begin with, as Superset has it (GLOBAL_ASYNC_QUERIES_REDIS_STREAM_PREFIX).
PREFIX = "async-events-"
#: A stream outlives the last event in it by this: longer than any browser polls for a chart.
EXPIRES_SECONDS = 24 * 3600


def tell_error(client: Redis[bytes], job: Mapping[str, Any], errors: list[Any], *, most: int, most_of_all: int) -> None:
    """Add the event that `job` has failed to its channel's stream, which keeps about `most` events, and to the stream of all.

    Raises what redis-py raises.
    """
    event: dict[Any, Any] = {"data": json.dumps({**job, "status": "error", "errors": errors})}
    stream = f"{PREFIX}{job['channel_id']}"
    client.xadd(stream, event, "*", most)
    client.xadd(f"{PREFIX}full", event, "*", most_of_all)
    client.expire(stream, EXPIRES_SECONDS)
