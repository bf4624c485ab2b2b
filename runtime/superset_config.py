"""What Superset loads through SUPERSET_CONFIG_PATH: the settings of this process's topology, under their own names."""

from __future__ import annotations

import os

from runtime import heartbeat
from runtime.config import load_topology, render, role
from runtime.config.objects import realise
from runtime.resilience import poison, reaper, worker
from runtime.tenancy import fair_channel, measures

_topology = load_topology(os.environ)
globals().update(realise(render(_topology, os.environ)))
heartbeat.install(os.environ)
fair_channel.install(_topology)
measures.install(role(os.environ))
if role(os.environ) == "worker":
    poison.install()
worker.install(os.environ)
reaper.install(os.environ)
