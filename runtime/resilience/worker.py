"""What a Celery worker does beside its tasks, through Celery's own signals: say what it holds, send what is due, fork cleanly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from runtime import coordination
from runtime.commands import ROLE_ENV
from runtime.resilience import database, delays, holdings, transient

logger = logging.getLogger(__name__)

#: Imported by threads of the parent later, so now: a child that is forked in the middle of an import waits for it for ever.
NEEDED = (
    "celery.worker.state",
    "kombu.utils.json",
    "psycopg2",
    "sqlalchemy.exc",
    "sqlalchemy.pool",
    "superset.errors",
    "superset.extensions",
    "runtime.resilience.requests",
)

_threads: list[holdings.Publisher | delays.Sender] = []


def install(env: Mapping[str, str]) -> bool:
    """Connect the handlers, where this process is to become a Celery worker; whether it is."""
    if env.get(ROLE_ENV) != "worker":
        return False
    signals = import_module("celery.signals")
    signals.worker_ready.connect(started, weak=False)
    signals.worker_before_create_process.connect(about_to_fork, weak=False)
    signals.worker_process_init.connect(forked, weak=False)
    signals.worker_shutdown.connect(stopped, weak=False)
    return True


def started(sender: Any, **_: Any) -> None:
    """The parent consumes messages (`sender` is its consumer)."""
    database.is_parent()
    for module in NEEDED:
        import_module(module)
    _threads.extend((holdings.Publisher(sender.hostname), delays.Sender(sender.app)))
    for thread in _threads:
        thread.start()


def about_to_fork(**_: Any) -> None:
    """The parent is about to fork a child: it keeps no connection to the metadata database that the child would share.

    As shipped (6.1) only the child disposes of the pool, which ends the parent's sessions under it.
    """
    app = import_module("superset.tasks.celery_app").flask_app
    with app.app_context():
        import_module("superset.extensions").db.engine.dispose()


def forked(**_: Any) -> None:
    """This is a new child: connections to Redis are its own, and transient errors of databases reach its tasks' wrapper."""
    coordination.reset()
    _threads.clear()
    transient.install()


def stopped(**_: Any) -> None:
    """The parent has stopped, with all its tasks."""
    for thread in _threads:
        thread.end()
