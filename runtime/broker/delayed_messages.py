"""Tasks that are sent again at a time: a retry after its back-off, a second delivery whose first one still runs.

Celery's own countdown keeps such a message in a worker's memory, unacknowledged: it takes a place of the prefetch count, dies
with the worker, and comes twice when it waits longer than the visibility timeout. Here it waits in Redis, and the parent
process of any worker sends it when it is due. A sender that dies in between sends it twice at worst, and the fence lets one in.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, cast

from runtime.broker import fork_safety
from runtime.broker.task_messages import TaskMessage
from runtime.environment import coordination
from runtime.environment.redis_clients import text

logger = logging.getLogger(__name__)

#: Sorted set: a task's id by when it is due. Hash: its message by its id.
DELAYED = "delayed"
MESSAGES = "delayed:messages"
#: How often each worker looks for what is due, how much it takes at once, and how long it has to send that.
LOOK_SECONDS = 1.0
AT_ONCE = 20
SEND_SECONDS = 30.0

#: Takes what is due for as long as sending takes: the due time moves on, so that nobody else takes it meanwhile.
_TAKE_DUE = """
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
local found = {}
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], ARGV[2], id)
  table.insert(found, id)
  table.insert(found, redis.call('HGET', KEYS[2], id) or '')
end
return found
"""


def send_later(message: TaskMessage, seconds: float) -> None:
    """Have the task sent `seconds` from now. Raises what redis-py raises where Redis does not answer."""
    pipe = coordination.client().pipeline(transaction=True)
    pipe.hset(coordination.key(MESSAGES), message.task_id, message.text())
    pipe.zadd(coordination.key(DELAYED), {message.task_id: time.time() + seconds})
    pipe.execute()


def waiting() -> frozenset[str]:
    """The ids of all tasks that wait here. Raises what redis-py raises where Redis does not answer."""
    return frozenset(text(task_id) for task_id in coordination.client().zrange(coordination.key(DELAYED), 0, -1))


def send_due(app: Any) -> int:
    """Send what is due, and return how much that was.

    Raises what redis-py raises, and the last of what kombu raised; what was not sent is due again later.
    """
    now = time.time()
    keys = (coordination.key(DELAYED), coordination.key(MESSAGES))
    found = cast("list[Any]", coordination.client().eval(_TAKE_DUE, 2, *keys, now, now + SEND_SECONDS, AT_ONCE))
    sent, failed = 0, None
    for task_id, message in zip(found[::2], found[1::2], strict=True):
        try:
            if message:
                TaskMessage.of(text(message)).send(app)
                sent += 1
        except Exception as error:
            # Not what is behind it.
            failed = error
            continue
        pipe = coordination.client().pipeline(transaction=True)
        pipe.zrem(keys[0], task_id)
        pipe.hdel(keys[1], task_id)
        pipe.execute()
    if failed is not None:
        raise failed
    return sent


class Sender:
    """A thread of a worker's parent process that sends what is due."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delays", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with fork_safety.undisturbed():
                try:
                    send_due(self._app)
                except Exception as error:
                    logger.warning("delayed tasks were not sent: %s", error)
