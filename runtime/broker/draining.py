"""A worker that is asked to take no more messages: it ends what it has, and others take what waits.

Asked through the coordination database rather than by Celery's remote control, which every process with the broker's password
may use. The request is for one process: a worker that starts anew takes messages again.

Leans on `call_soon`, `cancel_task_queue` and `add_task_queue` of `celery.worker.consumer.Consumer`, and on `select_add` of
Celery's queues (read and tested with Celery 5.6.3; no upstream issue known).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from redis import Redis

from runtime.broker import reserved_tasks
from runtime.environment import coordination, versions

logger = logging.getLogger(__name__)
versions.require(__name__, "celery")

#: Begins the name of the key in which one worker finds that it is asked.
DRAIN = "drain"
#: A request is forgotten after a day; a worker that lives longer keeps to it.
SECONDS = 24 * 3600


def ask(client: Redis[bytes], prefix: str, worker: str, *, drain: bool) -> bool:
    """Have `worker` take no more messages, or take them again; False where no such worker lives.

    It does within `reserved_tasks.PUBLISH_SECONDS` and shows it by the queues that it serves. `client` is one of the
    coordination database, whose keys begin with `prefix`. Raises what redis-py raises where Redis does not answer.
    """
    known = {each.worker: each.service.since for each in reserved_tasks.workers(client, prefix)}
    if worker not in known:
        return False
    client.set(f"{prefix}{DRAIN}:{worker}", f"{known[worker]!r} {'drain' if drain else 'resume'}", ex=SECONDS)
    return True


def asked(worker: str, since: float) -> bool | None:
    """Whether the process of `worker` that began at `since` shall take no more; None where nobody has said. Raises as `ask`."""
    said = coordination.client().get(coordination.key(DRAIN, worker))
    words = said.decode(errors="replace").split() if said else []
    with suppress(ValueError):
        if len(words) == 2 and float(words[0]) == since and words[1] in ("drain", "resume"):
            return words[1] == "drain"
    return None


class Draining:
    """What a worker's parent process does when it is asked; `consumer` is Celery's."""

    def __init__(self, consumer: Any, since: float) -> None:
        self._consumer = consumer
        self._since = since
        #: The queues that it takes no more from; None while it takes messages.
        self._left: tuple[str, ...] | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it takes messages from."""
        return () if self._left is not None else tuple(self._consumer.app.amqp.queues.consume_from)

    def look(self) -> None:
        """Do what is asked, if it is not done. Raises what redis-py raises."""
        wanted = asked(self._consumer.hostname, self._since)
        if wanted is True and self._left is None:
            self._left = self.queues
            logger.info("asked to drain: takes no more from %s", ", ".join(self._left))
            for queue in self._left:
                # Only its event loop may touch its channels.
                self._consumer.call_soon(self._consumer.cancel_task_queue, queue)
        elif wanted is False and self._left is not None:
            logger.info("asked to resume: takes from %s again", ", ".join(self._left))
            for queue in self._left:
                self._consumer.call_soon(self._resume, queue)
            self._left = None

    def _resume(self, queue: str) -> None:
        queues = self._consumer.app.amqp.queues
        queues.select_add(queues[queue])
        self._consumer.add_task_queue(queue)
