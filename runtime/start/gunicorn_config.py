"""gunicorn's configuration file: what only the running container knows."""

from __future__ import annotations

from runtime.environment import listening
from runtime.environment.process_topology import started

#: Where gunicorn listens.
bind = listening.gunicorn_binds(started().web.bind, started().web.port)
