"""Rules about the analytic databases."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings


def sample_has_no_uri(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The sample database is generated, so that nobody gives its URI."""
    for name, database in settings.databases.items():
        if database.sample and database.uri is not None:
            yield Problem(f"databases.{name}.uri", database.uri, "is not for the sample database", "Remove it")
