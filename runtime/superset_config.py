"""What Superset loads through SUPERSET_CONFIG_PATH: the settings of this process's topology, under their own names."""

from __future__ import annotations

import os

from runtime import heartbeat
from runtime.config import load_topology, render
from runtime.config.objects import realise

globals().update(realise(render(load_topology(os.environ), os.environ)))
heartbeat.install(os.environ)
