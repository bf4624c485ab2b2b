"""Rules about the web tier and the way to it."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings


def replicas_are_a_range(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The web tier has no more pods at rest than under load."""
    if settings.web.min_replicas > settings.web.max_replicas:
        yield Problem(
            "web.min_replicas",
            str(settings.web.min_replicas),
            f"must be at most web.max_replicas ({settings.web.max_replicas})",
            "Lower it, or raise web.max_replicas",
            also=("web.max_replicas",),
        )


def route_is_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A route names its way in, and an ingress its certificate."""
    route = settings.web.route
    if route is None:
        return
    if (route.kind == "gateway") != ("/" in route.parent):
        yield Problem(
            "web.route.parent",
            route.parent,
            f"must be {'namespace/name of a Gateway' if route.kind == 'gateway' else 'the name of an ingress class'}",
            "Change it, or web.route.kind",
            also=("web.route.kind",),
        )
    if route.kind == "ingress" and route.tls_secret_name is None:
        yield Problem(
            "web.route.tls_secret",
            "null",
            "must name the certificate's Secret: users log in over this route",
            "Name a Secret of type kubernetes.io/tls, such as cert-manager makes",
            also=("web.route.kind",),
        )
