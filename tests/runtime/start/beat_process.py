"""Run in Superset's environment as beat: what its process has, and whether what it writes is what Superset would write.

Prints JSON: the modules that beat has not loaded and must not, each job's message as beat and as Superset's application send it,
and an error of each type and the event of a chart by both.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, cast, get_args

from celery import Celery
from celery.beat import Scheduler
from redis import Redis

from runtime.config import async_queries
from runtime.environment import process_topology, redis_databases, secrets
from runtime.environment.redis_clients import client
from runtime.queries.canceller import Canceller
from runtime.queries.interfaces import ErrorType
from runtime.superset import implementation, without_superset

#: What differs from one message of a task to the next.
OF_ONE = ("id", "root_id", "expires", "superset_async_sent", "superset_async_signature", "origin")
JOB = {"channel_id": "channel", "job_id": "job", "user_id": 1, "status": "pending", "errors": [], "result_url": None}


def database(purpose: Any) -> Redis[bytes]:
    """A client of the Redis database of a purpose."""
    topology = process_topology.started()
    return client(redis_databases.database(topology, secrets.read(topology, os.environ), purpose))


def sent(app: Celery) -> dict[str, Any]:
    """The message of each job, as this application's beat sends it."""
    broker = database("broker")
    found: dict[str, Any] = {}
    for name, entry in cast("Any", Scheduler(app, lazy=False)).schedule.items():
        broker.delete("default")
        cast("Any", Scheduler(app, lazy=True)).apply_async(entry, advance=False)
        message = json.loads(cast(bytes, broker.lpop("default")))
        headers = {key: value for key, value in message["headers"].items() if key not in OF_ONE}
        properties = {
            key: message["properties"][key] for key in ("delivery_info", "priority", "delivery_mode", "body_encoding")
        }
        found[name] = {**message, "headers": headers, "properties": properties}
    return found


def event(ending: implementation.Ending, channel: str) -> list[Any]:
    """The events of a chart that this implementation ends, and how long their stream lives."""
    ending.chart({**JOB, "channel_id": channel, "guest_token": {"secret": 1}}, "gone")
    events = database("async_events")
    streams = [events.xrange(f"async-events-{channel}"), events.xrevrange("async-events-full", count=1)]
    said = [[entry[1][b"data"].decode().replace(channel, "") for entry in stream] for stream in streams]
    return [said, 86_000 < events.ttl(f"async-events-{channel}") <= 86_400]


def main() -> None:
    """Print it."""
    from runtime.start import beat

    beat.app.loader.init_worker()
    beat.app.finalize()
    ours = sent(beat.app)
    absent = [name for name in ("superset", "flask_appbuilder", "pandas", "sqlglot") if name not in sys.modules]
    canceller = Canceller(["false"])
    ending = without_superset.Ending(
        database("async_events"), async_queries.CHANNEL_EVENTS, async_queries.ALL_EVENTS, canceller
    )
    own_event = event(ending, "ours")

    from superset.tasks.celery_app import app, flask_app

    app.loader.import_default_modules()
    with flask_app.app_context():
        theirs = sent(app)
        types = get_args(ErrorType)
        errors = [[without_superset.error("lost", each), implementation.error("lost", each)] for each in types]
        print(
            json.dumps(
                {
                    "absent": absent,
                    "messages": [ours, theirs],
                    "errors": errors,
                    "events": [own_event, event(implementation.Ending(), "theirs")],
                },
                default=str,
            )
        )


if __name__ == "__main__":
    main()
