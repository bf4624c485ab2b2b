"""Tasks that are sent again at a time: a retry after its back-off, a second delivery whose first one still runs.

Celery's own countdown keeps such a message in a worker's memory, unacknowledged: it takes a place of the prefetch count, dies
with the worker, and comes twice when it waits longer than the visibility timeout. Here it waits in Redis, and the parent
process of any worker sends it when it is due. A sender that dies in between sends it twice at worst, and the fence lets one in.
It is signed here as it is in a queue: a worker that sends it signs it anew, and must not do so for whoever can write to Redis.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any, cast

from runtime.broker import fork_safety, signatures
from runtime.broker.signatures import SignatureError
from runtime.broker.task_messages import TaskMessage
from runtime.environment import coordination, counters
from runtime.environment.redis_clients import text
from topology import metric_names

logger = logging.getLogger(__name__)

#: Sorted set: a task's id by when it is due. Hash: by its id, a word of its own for each time that it was sent here, the
#: signature of its message, and the message.
DELAYED = "delayed"
MESSAGES = "delayed:messages"
#: How often each worker sweeps for what is due, how much it takes at once, and how long it has to send that.
SWEEP_SECONDS = 1.0
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
#: Removes what was sent, unless it was rescheduled meanwhile: then it is another word's.
_REMOVE = """
if (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""


def send_later(message: TaskMessage, seconds: float) -> None:
    """Have the task sent `seconds` from now; one that waits here already is rescheduled. Raises what redis-py raises."""
    pipe = coordination.client().pipeline(transaction=True)
    pipe.hset(coordination.key(MESSAGES), message.task_id, f"{uuid.uuid4().hex} {_signed(message)}")
    pipe.zadd(coordination.key(DELAYED), {message.task_id: time.time() + seconds})
    pipe.execute()


def waiting() -> frozenset[str]:
    """The ids of all tasks that wait here. Raises what redis-py raises where Redis does not answer."""
    return frozenset(text(task_id) for task_id in coordination.client().zrange(coordination.key(DELAYED), 0, -1))


def send_due(app: Any) -> int:
    """Send what is due, and return how much that was. A child may be forked between two messages, and not during one.

    Raises what redis-py raises, and the last of what kombu raised; what was not sent is due again later.
    """
    sent, failed = 0, None
    with fork_safety.undisturbed():
        due = _take_due()
    for task_id, kept in due:
        with fork_safety.undisturbed():
            try:
                sent += _send(app, task_id, kept)
            except Exception as error:
                # Not what is behind it.
                failed = error
    if failed is not None:
        raise failed
    return sent


def _take_due() -> list[tuple[str, str]]:
    """Each id that is due, with its word and message."""
    now = time.time()
    taken = cast("list[Any]", coordination.client().eval(_TAKE_DUE, 2, *_keys(), now, now + SEND_SECONDS, AT_ONCE))
    return [(text(task_id), text(kept)) for task_id, kept in zip(taken[::2], taken[1::2], strict=True)]


def _send(app: Any, task_id: str, kept: str) -> bool:
    """Send one message and remove it; whether it was sent. What is no message is removed and counted."""
    message = None
    try:
        message = _read(kept)
    except SignatureError as error:
        logger.error("what was to be sent as task %r is %s: removed", task_id, error)  # noqa: TRY400 - its text says it
        counters.count(metric_names.POISON, where="signature")
    else:
        if message is None:
            logger.warning("what was to be sent as task %r is no message: removed", task_id)
            counters.count(metric_names.POISON, where="delayed")
        else:
            message.send(app)
    coordination.client().eval(_REMOVE, 2, *_keys(), task_id, kept)
    return message is not None


def _signed(message: TaskMessage) -> str:
    written = message.to_json()
    return f"{signatures.of_process().of_text(DELAYED, written)} {written}"


def _read(kept: str) -> TaskMessage | None:
    """The message; None for what is none, SignatureError for one that no process of ours has written."""
    _, _, rest = kept.partition(" ")
    signature, _, written = rest.partition(" ")
    if signature.startswith("{"):
        # Without one, as the release before wrote it.
        signature, written = None, rest
    signatures.of_process().check_text(DELAYED, written, signature)
    try:
        return TaskMessage.from_json(written)
    except (ValueError, TypeError, RecursionError):
        return None


def _keys() -> tuple[str, str]:
    return coordination.key(DELAYED), coordination.key(MESSAGES)


class Sender:
    """A thread of a worker's parent process that sends what is due."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delayed-messages", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def end(self) -> None:
        """Sweep no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(SWEEP_SECONDS):
            try:
                send_due(self._app)
            except Exception as error:
                with fork_safety.undisturbed():
                    logger.warning("delayed tasks were not sent: %s", error)
