"""Run in Superset's environment, with real Celery: sends nina's query, changes the topology's file, and sends it again.

Usage: python -m tests.runtime.tenants.changed_tenants_process FILE CHANGED TASK
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, cast

from celery import Celery

from runtime.config import render, tasks
from runtime.environment import process_topology
from runtime.environment.process_topology import load_topology
from runtime.tenants.recognition import Person
from runtime.tenants.router import LiveRouter, Router


class Known:
    """A directory that needs no Superset."""

    def named(self, username: str) -> Person:
        """Somebody without roles."""
        return Person(username=username)

    def database_of_query(self, query_id: int) -> str | None:
        """No database is known."""


def main(file: Path, changed: Path, task: str) -> None:
    """Print, as JSON, which queues Celery had at its start."""
    process_topology.current = process_topology.Watched(file, every=0)
    tasks.LiveRouter = lambda first, _: LiveRouter(first, lambda plan: Router(plan, cast(Any, Known()), lambda: False))
    config = render(load_topology(os.environ), os.environ)["CELERY_CONFIG"]
    app = Celery()
    app.config_from_object(config)
    app.set_current()
    at_start = sorted(app.amqp.queues)
    app.send_task(task, (1,), {"username": "nina"})
    changed.replace(file)
    app.send_task(task, (1,), {"username": "nina"})
    print(json.dumps({"queues_at_start": at_start}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
