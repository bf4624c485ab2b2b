"""Superset's configuration as a pure function of a topology and an environment, one module a concern."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from pydantic import ValidationError

from runtime.commands import ROLE_ENV, TOPOLOGY_ENV
from runtime.config import async_queries, caches, limits, metadata, secrets, tasks, web
from runtime.config.metadata import Role
from runtime.config.secrets import ConfigurationError
from runtime.model import Topology

__all__ = ["ConfigurationError", "load_topology", "render", "role"]


def render(topology: Topology, env: Mapping[str, str]) -> dict[str, object]:
    """Every setting of a Superset process: upper-case names of Superset, and inside CELERY_CONFIG Celery's own.

    Plain data, but for the descriptions of `objects` (a schedule, a function, a store), which `objects.realise` replaces.
    ConfigurationError where `env` lacks a secret or names no role.
    """
    known = secrets.read(topology, env)
    return {
        **metadata.settings(topology, known, role(env)),
        **tasks.settings(topology, known),
        **caches.settings(topology, known),
        **async_queries.settings(topology, known),
        **limits.settings(topology),
        **web.settings(topology, known),
    }


def role(env: Mapping[str, str]) -> Role:
    """Which kind of process this is, from the environment; ConfigurationError for none or an unknown one."""
    value = env.get(ROLE_ENV, "")
    if value not in get_args(Role):
        raise ConfigurationError(f"{ROLE_ENV} is {value!r}, and must be one of {', '.join(get_args(Role))}")
    return cast(Role, value)


def load_topology(env: Mapping[str, str]) -> Topology:
    """The topology in the file that the environment names; ConfigurationError where there is none, or it does not fit."""
    path = env.get(TOPOLOGY_ENV)
    if not path:
        raise ConfigurationError(f"{TOPOLOGY_ENV} is not set: it must be the path of the topology's JSON")
    try:
        return Topology.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{TOPOLOGY_ENV}={path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(
            f"{TOPOLOGY_ENV}={path} is no topology of this version ({error.error_count()} problems, first: "
            f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}). Make it again with this version"
        ) from None
