"""What a Celery worker does beside its tasks, through Celery's own signals: say what it holds, send what is due, fork cleanly.

Leans on `superset.tasks.celery_app.flask_app` and `superset.extensions.db` (read and tested with 6.1.0).

(No upstream issue known.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from celery import signals

from runtime.broker import delayed_messages, reserved_tasks
from runtime.broker.draining import Draining
from runtime.environment import coordination, counters, metadata_database, process_memory, process_topology, versions
from runtime.observability import tracing
from runtime.superset import connections
from topology.commands import ROLE_ENV

#: Ends the traces of this child.
_tracing: list[Callable[[], None]] = []
_threads: list[reserved_tasks.Publisher | delayed_messages.Sender] = []


def install(env: Mapping[str, str]) -> bool:
    """Connect the handlers, where this process is to become a Celery worker; whether it is."""
    if env.get(ROLE_ENV) != "worker":
        return False
    versions.require(__name__, "apache-superset", "celery")
    signals.worker_ready.connect(started, weak=False)
    signals.worker_before_create_process.connect(about_to_fork, weak=False)
    signals.worker_process_init.connect(forked, weak=False)
    signals.worker_process_shutdown.connect(ending, weak=False)
    signals.worker_shutdown.connect(stopped, weak=False)
    return True


def started(sender: Any, **_: Any) -> None:
    """The parent consumes messages (`sender` is its consumer)."""
    metadata_database.is_parent()
    _import_what_threads_need()

    since = time.time()
    draining = Draining(sender, since)

    children, oom_kills = process_memory.Children(), process_memory.OomKills()

    def service() -> reserved_tasks.Service:
        used = children.look(sender.pool.info["processes"])
        return reserved_tasks.Service(
            draining.queues,
            int(sender.pool.num_processes),
            since,
            child_bytes=used.now,
            child_peak_bytes=used.peak,
            child_grown_bytes=used.grown,
            oom_kills=oom_kills(),
        )

    publisher = reserved_tasks.Publisher(sender.hostname, service, after=draining.look)
    _threads.extend((publisher, delayed_messages.Sender(sender.app)))
    for thread in _threads:
        thread.start()


def _import_what_threads_need() -> None:
    """Import now what threads of the parent would import later: a child that is forked in the middle of an import waits for it
    for ever.
    """
    import superset.errors
    import superset.extensions  # noqa: F401

    import runtime.queries.lost_children  # noqa: F401


def about_to_fork(**_: Any) -> None:
    """The parent is about to fork a child: it keeps no connection to the metadata database that the child would share.

    As shipped (6.1) only the child disposes of the pool, which ends the parent's sessions under it.
    """
    from superset.extensions import db
    from superset.tasks.celery_app import flask_app

    _prepare_once()
    with flask_app.app_context():
        db.engine.dispose()


@cache
def _prepare_once() -> None:
    """Before its first child, the parent imports what tasks need: each child would do it by itself, in memory of its own."""
    from superset.tasks.celery_app import flask_app

    from runtime.superset import application

    application.import_all(flask_app)
    application.freeze()


def forked(**_: Any) -> None:
    """This is a new child: connections to Redis are its own, and transient errors of databases reach its tasks' wrapper."""
    coordination.reset()
    _threads.clear()
    connections.install()
    _tracing[:] = [end for end in (tracing.start(process_topology.started(), "worker"),) if end]


def ending(**_: Any) -> None:
    """This child ends: what it has logged and counted is written, and its spans are sent."""
    from runtime.superset import event_log

    event_log.batches.flush()
    counters.later.flush()
    for end in _tracing:
        end()


def stopped(**_: Any) -> None:
    """The parent has stopped, with all its tasks."""
    for thread in _threads:
        thread.end()
