"""Rules about the analytic databases."""

from __future__ import annotations

from collections.abc import Iterator

from topology import drivers
from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings


def sample_has_no_uri(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The sample database is generated, so that nobody gives its URI."""
    for name, database in settings.databases.items():
        if database.sample and database.uri is not None:
            yield Problem(f"databases.{name}.uri", database.uri, "is not for the sample database", "Remove it")


def kept_connections_only_read(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Whoever cancels a query ends its session, which by then may do the next one's work: only a read is then tried again."""
    for name, database in settings.databases.items():
        if database.keep_connections and database.allow_dml:
            yield Problem(
                f"databases.{name}.keep_connections",
                "true",
                "is only for a database without DML",
                f"Remove it, or databases.{name}.allow_dml",
            )


def drivers_are_in_the_image(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Superset can open a database only with its driver: without one users would get an error 500."""
    for name, database in settings.databases.items():
        if database.uri is not None and (found := drivers.problem(database.uri, settings.images.drivers)):
            yield Problem(f"databases.{name}.uri", database.uri, *found, also=("images.drivers",))
