"""Celery beat: sends the scheduled jobs, and has the reaper of lost queries and the watchdog of Redis's scripts as threads.

It has no Superset: of the configuration it needs Celery's part, and a job is sent by its name. A message of such a
job is as Superset's own application would send it, since none of these tasks has options of its own that go into a message.

Leans on Celery's signal beat_init (read and tested with Celery 5.6.3; no upstream issue known).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, cast

from celery import Celery, signals
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from runtime.broker import result_backends, signatures  # noqa: F401 - refuses an untested Celery now
from runtime.config import async_queries, metadata, tasks
from runtime.config.objects import realise
from runtime.environment import (
    json_logs,
    metadata_database,
    process_topology,
    redis_databases,
    script_watchdog,
    secrets,
    versions,
)
from runtime.environment.redis_clients import client
from runtime.environment.secrets import Secrets
from runtime.observability import task_metrics
from runtime.queries import interfaces, reaper
from runtime.queries.canceller import Canceller
from runtime.superset import without_superset
from topology import commands
from topology.model import Topology

logger = logging.getLogger(__name__)

#: What Superset's own application takes of Celery's configuration to execute tasks, and nobody needs to send them.
FOR_EXECUTION = frozenset({"imports", "task_annotations"})


def application(topology: Topology, env: Mapping[str, str]) -> Celery:
    """The Celery application of a process that only sends; ConfigurationError for a topology that nobody could be sent from."""
    config = cast("dict[str, object]", tasks.settings(topology, secrets.read(topology, env))["CELERY_CONFIG"])
    known = Celery("beat")
    known.config_from_object(realise({name: value for name, value in config.items() if name not in FOR_EXECUTION}))
    return known


def _configured(env: Mapping[str, str]) -> Celery:
    topology = process_topology.started()
    versions.require(__name__, "apache-superset", "celery")
    json_logs.install(show_sql=topology.superset.log_sql)
    metadata_database.give_password(topology, env)
    task_metrics.install(process_topology.role(env))
    signatures.install()
    signals.beat_init.connect(_start, weak=False)
    return application(topology, env)


def _start(**_: Any) -> None:
    topology, known = process_topology.started(), secrets.read(process_topology.started(), os.environ)
    options = cast("dict[str, Any]", metadata.engine_options(topology, "beat"))
    engine = cast("Engine", create_engine(metadata.uri(topology, known), **options))
    metadata_database.use_pool_of(lambda: engine)
    canceller = Canceller(commands.canceller())
    interfaces.use(without_superset.interface(_ending(topology, known, canceller)))
    found, pace = reaper.of_environment(os.environ)
    threading.Thread(target=reaper.run, args=(found, pace.every, canceller.rest), name="reaper", daemon=True).start()
    script_watchdog.of(topology, known).start()


def _ending(topology: Topology, known: Secrets, canceller: Canceller) -> without_superset.Ending:
    events = client(redis_databases.database(topology, known, "async_events"))
    return without_superset.Ending(events, async_queries.CHANNEL_EVENTS, async_queries.ALL_EVENTS, canceller)


app = _configured(os.environ)
