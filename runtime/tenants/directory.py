"""What the tenants' rules ask of Superset: who somebody is, and what a query reads. `runtime.superset.directory` answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from runtime.tenants.recognition import Person


class Directory(Protocol):
    """How the router finds out who somebody is and what a query reads."""

    def user(self, user_id: int) -> Person:
        """The user with this id."""
        ...

    def named(self, username: str) -> Person:
        """The user of this name."""
        ...

    def guest(self, token: Mapping[str, Any]) -> Person:
        """The embedded guest with this token."""
        ...

    def anonymous(self) -> Person:
        """Whoever is not logged in."""
        ...

    def database_of_query(self, query_id: int) -> str | None:
        """The name of the database that SQL Lab's query reads."""
        ...

    def database_of_chart(self, form_data: Mapping[str, Any]) -> str | None:
        """The name of the database that a chart reads."""
        ...
