"""A Celery application on the topology's own broker and queues, with one task that says when it ran. Superset's environment."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Connection

from runtime.broker import channels
from runtime.config import tasks
from runtime.environment import secrets
from runtime.environment.process_topology import load_topology
from runtime.observability import task_metrics
from runtime.tenants import fairness

topology = load_topology(os.environ)
app = Celery("fair")
config: dict[str, Any] = tasks.config(topology, secrets.read(topology, os.environ))
app.config_from_object(
    {
        **config,
        # A question that nobody ends stays with the broker for so long: whoever waits for the next one is seen to.
        "broker_transport_options": {**config["broker_transport_options"], "polling_interval": 30},
        "imports": (),
        "task_routes": (),
        "result_backend": None,
        "beat_schedule": {},
        "task_ignore_result": True,
    }
)
channels.install(partial(fairness.order_of, topology), lambda message: None)
task_metrics.install("worker")


def hold(self: Any, seconds: float) -> None:
    """Take a child for so long, and append when to the file of runs."""
    began = time.monotonic()
    time.sleep(seconds)
    queue = self.request.delivery_info["routing_key"]
    line = json.dumps({"queue": queue, "began": began, "ended": time.monotonic()})
    with Path(os.environ["RUNS"]).open("a") as runs:
        runs.write(line + "\n")


app.task(name="hold", bind=True)(hold)


def main() -> None:
    """Submit what the arguments say: QUEUE COUNT SECONDS, any number of times."""
    with Connection(app.conf.broker_url, transport_options=app.conf.broker_transport_options) as connection:
        for queue, count, seconds in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3], strict=True):
            for _ in range(int(count)):
                app.send_task("hold", (float(seconds),), queue=queue, connection=connection)


if __name__ == "__main__":
    main()
