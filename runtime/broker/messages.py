"""The broker's messages: which tasks wait or were delivered, and the way back of one that nobody has any more.

It reads the broker as Celery's Redis transport (kombu) keeps it: a list for each priority of a queue, and for all queues
together a hash of the delivered messages by their delivery tag, beside a sorted set of the tags by time.

Reads keys of kombu's, and replaces nothing (read and tested with kombu 5.6.2; no upstream issue known).
"""

from __future__ import annotations

import json
import logging
import re
from bisect import bisect
from collections.abc import Sequence
from typing import cast

from redis import Redis

from runtime.environment import versions
from runtime.environment.redis_clients import text

logger = logging.getLogger(__name__)
versions.require(__name__, "kombu")

#: How Celery's transport names its keys: a queue's list has the queue's name; those of other priorities have a suffix too.
PRIORITY_SUFFIXES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
PRIORITY_STEPS = (0, 3, 6, 9)
#: Hash of delivered messages by their delivery tag, and sorted set of the tags by the time of delivery.
UNACKNOWLEDGED, DELIVERED_AT = "unacked", "unacked_index"
#: Whole messages of one reply, and tags of one reply: messages hold SQL.
MESSAGES, TAGS = 100, 1000
#: The task's id in a message's text. Quotes inside of any string are escaped, so this is a key of the message itself or of
#: its headers, and the id comes first there.
_TASK_ID = re.compile(rb'"id": ?"([^"\\]+)"')

#: Exactly once: whoever finds the message as it was read moves it, all at once.
_MOVE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then redis.call('RPUSH', KEYS[3], ARGV[3]) end
return 1
"""


class Messages:
    """The messages of a broker's declared queues. Every method raises RedisError where the broker does not answer."""

    def __init__(self, connection: Redis[bytes], prefix: str, queues: Sequence[str]) -> None:
        self._connection = connection
        self._prefix = prefix
        self._queues = queues
        self._task_of: dict[str, str] = {}

    def waiting(self) -> set[str]:
        """Ids of all tasks in the queues. What is no message of Celery's is left out."""
        found: set[str] = set()
        for queue in self._queues:
            for suffix in PRIORITY_SUFFIXES:
                self._read(f"{self._prefix}{queue}{suffix}", found)
        return found

    def _read(self, key: str, found: set[str]) -> None:
        # Messages come in on the left and go on the right: what moves meanwhile is seen twice, never left out.
        for first in range(0, 2**31, MESSAGES):
            chunk = self._connection.lrange(key, first, first + MESSAGES - 1)
            found.update(filter(None, map(task_id, chunk)))
            if len(chunk) < MESSAGES:
                return

    def delivered(self) -> dict[str, str]:
        """Task id of every message that was delivered and not acknowledged, by delivery tag; empty for what is no message."""
        index = f"{self._prefix}{DELIVERED_AT}"
        tags = {text(tag) for tag, _ in self._connection.zscan_iter(index, count=TAGS)}
        self._task_of = {tag: task for tag, task in self._task_of.items() if tag in tags}
        unknown = sorted(tags - self._task_of.keys())
        for first in range(0, len(unknown), MESSAGES):
            some = unknown[first : first + MESSAGES]
            messages = self._connection.hmget(f"{self._prefix}{UNACKNOWLEDGED}", some)
            for tag, message in zip(some, messages, strict=True):
                # None: acknowledged in the meantime.
                if message is not None:
                    self._task_of[tag] = task_id(message) or ""
        return dict(self._task_of)

    def restore(self, tag: str) -> str | None:
        """Put a delivered message back where its queue is consumed first, as kombu would, exactly once; the queue.

        None where it is not there any more. Empty where it is no message of a declared queue: such a one is removed.
        """
        keys = [f"{self._prefix}{UNACKNOWLEDGED}", f"{self._prefix}{DELIVERED_AT}"]
        message = self._connection.hget(keys[0], tag)
        if message is None:
            return None
        self._task_of.pop(tag, None)
        queue, suffix, payload = self._redelivered(message)
        if queue not in self._queues:
            logger.warning("the delivered message %s is none of a declared queue: removed", tag)
            queue, payload = "", ""
        target = f"{self._prefix}{queue}{suffix}" if queue else keys[0]
        moved = cast(object, self._connection.eval(_MOVE, 3, *keys, target, tag, message, payload))
        return queue if moved else None

    def _redelivered(self, message: bytes) -> tuple[str, str, str]:
        """Queue, suffix of the priority's list and text of a delivered message; an empty queue for what is none."""
        try:
            payload, _, routing_key = json.loads(message)
            payload["headers"]["redelivered"] = True
            payload["properties"]["delivery_info"]["redelivered"] = True
            priority = int(payload["properties"].get("priority") or 0)
            suffix = PRIORITY_SUFFIXES[max(0, bisect(PRIORITY_STEPS, priority) - 1)]
            return str(routing_key), suffix, json.dumps(payload)
        except (ValueError, TypeError, KeyError):
            return "", "", ""


def task_id(message: bytes) -> str | None:
    """The id of the task in a message's text, without reading all of it; None where it has none."""
    found = _TASK_ID.search(message)
    return found[1].decode(errors="replace") if found else None
