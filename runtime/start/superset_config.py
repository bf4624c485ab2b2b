"""What Superset loads through SUPERSET_CONFIG_PATH: the settings of this process's topology, under their own names.

The team's own module comes last of what says a setting, and before anything is replaced in Superset.
"""

from __future__ import annotations

import os
from functools import partial

from runtime.broker import result_backends, signatures  # noqa: F401 - refuses an untested Celery now, and not when a task is sent
from runtime.config import render
from runtime.config.objects import realise
from runtime.environment import json_logs, metadata_database
from runtime.environment.process_topology import role, started
from runtime.observability import heartbeat, task_metrics
from runtime.start import own_module
from runtime.superset import (
    implementation,
    known_users,  # noqa: F401 - refuses an untested Flask-AppBuilder now
    pings,
    worker_process,
)
from runtime.superset.directory import SupersetDirectory
from runtime.tenants import fairness, identity

_topology = started()
json_logs.install(show_sql=_topology.superset.log_sql)
metadata_database.give_password(_topology, os.environ)
globals().update(own_module.merged(_topology, realise(render(_topology, os.environ)), os.environ))
identity.look_up_in(SupersetDirectory())
implementation.install()
pings.install()
heartbeat.install(os.environ)
task_metrics.install(role(os.environ))
signatures.install()
if role(os.environ) == "worker":
    # The last one for its version: Celery loads it with the first message.
    from runtime.broker import channels, remote_control, requests  # noqa: F401

    channels.install(partial(fairness.order_of, _topology), signatures.of_process().check_message)
    remote_control.install()
worker_process.install(os.environ)
