"""Where the reaper runs: a thread of Celery beat, in Superset's application context; beside it the watchdog of Redis's scripts.

Leans on `superset.tasks.celery_app.flask_app` and on Celery's signal beat_init (read and tested with Superset 6.1.0 and
Celery 5.6.3; no upstream issue known).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from celery import signals

from runtime.environment import process_topology, script_watchdog, secrets, versions
from runtime.queries import reaper
from topology.commands import ROLE_ENV


def install(env: Mapping[str, str]) -> bool:
    """Have this process, if it is beat, run the reaper from its start on; whether it is."""
    if env.get(ROLE_ENV) != "beat":
        return False
    versions.require(__name__, "apache-superset", "celery")

    def start(**_: Any) -> None:
        from superset.tasks.celery_app import flask_app

        found, pace = reaper.of_environment(os.environ)
        arguments = (flask_app.app_context, found, pace.every)
        threading.Thread(target=reaper.run, args=arguments, name="reaper", daemon=True).start()
        topology = process_topology.started()
        script_watchdog.of(topology, secrets.read(topology, os.environ)).start()

    signals.beat_init.connect(start, weak=False)
    return True
