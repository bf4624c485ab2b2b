"""A task as it is sent and sent again.

Leans on `celery.app.routes.Router` and on the header `timelimit` of Celery's messages (read and tested with Celery 5.6.3; no
upstream issue known).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from celery import Celery
from celery.app.routes import Router
from kombu.utils import json

from runtime.broker.queues import declared
from runtime.environment import process_topology, versions

versions.require(__name__, "celery")

#: How the names of this project's own headers of messages begin.
_HEADERS = "superset_async_"


@dataclass(frozen=True)
class TaskMessage:
    """A task as it is sent: by its name, with its own id, to its queue, with its limits (hard and soft,
    seconds) and the headers that are this project's."""

    task: str
    task_id: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    time_limit: int | None
    soft_time_limit: int | None
    headers: dict[str, str]

    def to_json(self) -> str:
        """As JSON."""
        return str(json.dumps(asdict(self)))

    @staticmethod
    def from_json(written: str) -> TaskMessage:
        """The message whose `to_json()` this is; ValueError or TypeError where it is none's."""
        return TaskMessage(**json.loads(written))

    def send(self, app: Celery) -> None:
        """Send it through Celery's `app`, to the default queue where its own is gone, as the rest of that queue's messages.

        Raises what kombu raises where the broker does not take it.
        """
        plan = process_topology.current().celery
        queue = declared(self.queue) if self.queue in plan.queues else plan.default_queue
        # It has been routed: the router would look for a user of this process, which has none.
        router = Router(routes=(), queues=app.amqp.queues, app=app)
        app.send_task(
            self.task,
            args=self.args,
            kwargs=self.kwargs,
            task_id=self.task_id,
            queue=queue,
            time_limit=self.time_limit,
            soft_time_limit=self.soft_time_limit,
            headers=self.headers,
            router=router,
        )


def own_headers(fields: Mapping[str, Any]) -> dict[str, str]:
    """This project's own among a message's headers, which go with it when it is sent again."""
    return {name: str(value) for name, value in fields.items() if name.startswith(_HEADERS)}
