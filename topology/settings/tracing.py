"""Traces: where the spans of web processes and workers go, and which."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from topology.settings.section import Section
from topology.settings.values import Cidr, matching

#: Of OTLP over HTTP, where the endpoint has none.
_PORTS = {"http": 80, "https": 443}
Endpoint = Annotated[
    str,
    matching(
        r"https?://[^\s/?#@]+(/[^\s?#]*)?",
        "must be the http or https URL of a collector, without a user|Write it as in http://collector.observability.svc:4318",
    ),
]


class TracingSettings(Section):
    """Traces by OpenTelemetry, over OTLP/HTTP; headers with a secret are OTEL_EXPORTER_OTLP_HEADERS in `superset.env`."""

    endpoint: Endpoint | None = Field(description="URL of the collector, before /v1/traces; null: nothing is traced")
    cidrs: tuple[Cidr, ...] | None = Field(
        strict=False,
        description="on a cluster: networks of the collector; null: the address, or the Service's namespace, that its host is",
    )
    ratio: float = Field(ge=0, le=1, description="share of the requests that are traced")
    sql: bool = Field(description="spans have the text of statements and errors; it may hold people's data")

    @property
    def peer(self) -> tuple[str, int] | None:
        """Host and port of the collector; None without one."""
        if self.endpoint is None:
            return None
        parts = urlsplit(self.endpoint)
        return parts.hostname or "", parts.port or _PORTS[parts.scheme]
