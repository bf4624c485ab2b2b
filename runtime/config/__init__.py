"""Superset's configuration as a pure function of a topology and an environment, one module a concern."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.config import async_queries, caches, embedding, limits, metadata, own, sign_on, tasks, web
from runtime.environment import secrets
from runtime.environment.process_topology import role
from topology.model import Topology

__all__ = ["render"]


def render(topology: Topology, env: Mapping[str, str]) -> dict[str, object]:
    """Every setting of a Superset process: upper-case names of Superset, and inside CELERY_CONFIG Celery's own.

    Plain data, but for the descriptions of `objects` (a schedule, a function, a store), which `objects.realise` replaces.
    ConfigurationError where `env` lacks a secret or names no role.
    What the stack file says of the team's own Superset is in it; what the team's module says comes later (`own.with_module`).
    """
    known = secrets.read(topology, env)
    settings = {
        **metadata.settings(topology, known, role(env)),
        **tasks.settings(topology, known),
        **caches.settings(topology, known),
        **async_queries.settings(topology, known),
        **limits.settings(topology),
        **web.settings(topology, known),
        **sign_on.settings(topology, env),
        **embedding.settings(topology),
    }
    return own.with_data(topology, settings, env)
