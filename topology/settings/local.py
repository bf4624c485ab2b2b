"""The local platform's own settings."""

from __future__ import annotations

from pydantic import Field

from topology.settings.section import Section
from topology.settings.values import Port


class LocalSettings(Section):
    """Ports of the local platform, all on 127.0.0.1."""

    web_port: Port = Field(description="Superset")
    redis_port: Port = Field(description="first Redis server; a second one has the next port")
    postgres_port: Port = Field(description="PostgreSQL")
    exporter_port: Port = Field(description="metrics of the queues, for a Prometheus on this machine")
    prometheus_port: Port = Field(description="Prometheus, where it is started (make up OBSERVE=1)")
    alertmanager_port: Port = Field(description="Alertmanager, where it is started")
