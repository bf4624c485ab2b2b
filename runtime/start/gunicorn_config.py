"""gunicorn's configuration file: what only the running container knows."""

from __future__ import annotations

import atexit
from typing import Any

from runtime.environment import json_logs, listening
from runtime.environment.process_topology import started
from runtime.observability import tracing
from runtime.web import descriptors
from runtime.web.buffering_worker import BufferingWorker

#: Where gunicorn listens.
bind = listening.gunicorn_binds(started().web.bind, started().web.port)

#: No client that is slow or silent holds a thread.
worker_class = BufferingWorker

#: Connections that a process holds at once, those included that say nothing.
worker_connections = descriptors.connections(descriptors.raised(), started().web.threads)

#: Its own lines and the access log, as every process writes them.
logconfig_dict = json_logs.gunicorn_config(show_sql=started().superset.log_sql)


def post_fork(server: Any, worker: Any) -> None:
    """gunicorn's hook: in a process that serves requests, before its first one. Its traces end with it."""
    end = tracing.start(started(), "web")
    if end is not None:
        atexit.register(end)


access_log_format = "%(m)s %(U)s %(s)s"
