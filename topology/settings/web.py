"""The web tier, and how users reach it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from topology.quantities import Memory
from topology.settings.postgres import ConnectionPool
from topology.settings.resources import Resources
from topology.settings.section import Section
from topology.settings.values import HostName, NamespaceName, ObjectName, Percent, Positive, matching

RouteKind = Literal["ingress", "gateway"]

Rate = Annotated[
    str,
    matching(
        r"[1-9][0-9]{0,5} per (second|minute|hour)",
        'must be a number of log-ins in a time|Say it so: "5 per second", "30 per minute"',
    ),
]


class Route(Section):
    """How users reach the web tier from outside the cluster, over HTTPS: an Ingress, or an HTTPRoute of a Gateway."""

    kind: RouteKind = Field(description="ingress, or gateway (an HTTPRoute)")
    host: HostName = Field(description="host name in the URL")
    parent: str = Field(description="ingress class, or the Gateway as namespace/name")
    tls_secret_name: ObjectName | None = Field(
        validation_alias="tls_secret",
        description="Secret with the certificate of an ingress; null for a gateway, which has its own",
    )
    from_namespaces: tuple[NamespaceName, ...] = Field(
        strict=False, description="namespaces whose pods may connect to the web tier"
    )


class WebServer(Section):
    """What the web tier runs with, as a stack file says it and a topology has it."""

    min_replicas: Positive = Field(description="pods at rest")
    max_replicas: Positive = Field(description="pods under load; equal to min_replicas: no scaler")
    processes: Positive = Field(description="gunicorn worker processes in a pod")
    threads: Positive = Field(description="threads in each process, so requests it can hold at once")
    request_timeout_seconds: Positive = Field(
        validation_alias="request_timeout", description="seconds after which gunicorn kills a silent worker"
    )
    secure_cookies: bool = Field(description="cookies only over HTTPS; false only where users reach it over plain HTTP")
    proxies: Annotated[int, Field(ge=0, le=5)] = Field(
        strict=False,
        description="proxies between users and the web tier that add to X-Forwarded-For: 1 for an ingress or a gateway, 2 where "
        "a load balancer that does so stands before it (ingress-nginx adds to its header with use-forwarded-headers alone); 0: "
        "the header is nobody's word. With too few all users have one address, with too many a user chooses his own",
    )
    max_upload_bytes: Memory = Field(
        validation_alias="max_upload",
        description="the largest request: a file that is uploaded, a dashboard that is imported",
    )
    login_rate: Rate = Field(
        description="log-ins, right and wrong, from one address: more are answered 429 with Retry-After"
    )
    telemetry: bool = Field(description="whether pages may call Superset's telemetry host")
    route: Route | None = Field(description="way in from outside the cluster; null: by port-forward only")
    connections: ConnectionPool
    resources: Resources


class WebSettings(WebServer):
    """The web tier (gunicorn)."""

    cpu_target: Percent = Field(description="CPU utilization, in percent of the request, that the scaler aims at")
