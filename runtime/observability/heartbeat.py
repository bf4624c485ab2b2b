"""A worker's sign of life: a file that its event loop touches every two seconds, for a liveness probe to look at.

Asking a worker by `celery inspect ping` starts Superset anew for every probe; looking at a file costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Path of the file; unset: none is touched.
HEARTBEAT_ENV = "SUPERSET_ASYNC_HEARTBEAT"
#: Seconds without a touch after which a worker is taken for hung. Longer than the broker may be away: a worker that waits
#: for it does not turn its event loop, and must not be killed with the queries that it runs.
HUNG_AFTER_SECONDS = 300


def install(env: Mapping[str, str]) -> bool:
    """Have this process, if it becomes a Celery worker, touch the file that `env` names; whether it names one."""
    path = env.get(HEARTBEAT_ENV)
    if not path:
        return False
    file = Path(path)

    def touch(**_: Any) -> None:
        file.touch()

    # Sent by the event loop that also consumes messages. Only the worker's parent process has it.
    from celery.signals import heartbeat_sent

    heartbeat_sent.connect(touch, weak=False)
    return True
