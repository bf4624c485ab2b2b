"""Whose a query is, decided from what is known of who asked for it. Pure: nothing here looks anything up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from topology.model import Tenant

#: The id of no tenant.
NOBODY = ""


@dataclass(frozen=True)
class Person:
    """Who asks: a user of Superset by name, or an embedded guest by its token's claims, each with roles.

    A guest has no user name here: the application that signs its token chose the name in it, and it may be any user's.
    """

    username: str | None = None
    roles: frozenset[str] = frozenset()
    guest: Mapping[str, Any] | None = None


class Recognition:
    """The rules of all tenants. Where several tenants claim a role, a database or a guest, the one declared first has it."""

    def __init__(self, tenants: Sequence[Tenant]) -> None:
        self._users = {user: tenant.id for tenant in reversed(tenants) for user in tenant.users}
        self._roles = {role: tenant.id for tenant in reversed(tenants) for role in tenant.roles}
        self._databases = {name: tenant.id for tenant in reversed(tenants) for name in tenant.databases}
        self._guests = [(claim.claim.split("."), claim.value, tenant.id) for tenant in tenants for claim in tenant.guests]
        self._place = {tenant.id: place for place, tenant in enumerate(tenants)}

    def of_person(self, person: Person) -> str:
        """The tenant that `person` belongs to whatever they query: by guest claim, then by name, then by roles."""
        if person.guest is not None:
            for path, value, tenant in self._guests:
                if any(_matches(found, value) for found in _at(person.guest, path)):
                    return tenant
        elif person.username in self._users:
            return self._users[person.username]
        of_roles = {self._roles[role] for role in person.roles if role in self._roles}
        return min(of_roles, key=self._place.__getitem__, default=NOBODY)

    def of_query(self, person: Person, database: Callable[[], str | None]) -> str:
        """The tenant of a query of `person`: their own, else the one of the database, which is asked for only then."""
        own = self.of_person(person)
        if own or not self._databases:
            return own
        return self._databases.get(database() or "", NOBODY)


def _at(value: object, path: Sequence[str]) -> Iterator[object]:
    """What stands at the dotted path; the path goes through every item of a list."""
    if isinstance(value, (list, tuple)):
        for item in cast("Sequence[object]", value):
            yield from _at(item, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        if path[0] in mapping:
            yield from _at(mapping[path[0]], path[1:])


def _matches(found: object, wanted: str) -> bool:
    if isinstance(found, Mapping) or found is None:
        return False
    text = str(found).lower() if isinstance(found, bool) else str(found)
    return text.startswith(wanted[:-1]) if wanted.endswith("*") else text == wanted
