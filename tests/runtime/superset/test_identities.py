"""Whose data a cached chart is, in any world: what differs for who asks has another name, and what does not has the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared

pytestmark = pytest.mark.superset

#: Users, and their roles. Alice has a tenant of her own.
USERS = {"nina": "north", "north-too": "north", "sam": "south", "oda": "Gamma", "alice": "Gamma"}
TENANTS = {"alice": "tenant-a"}
CLAUSES = ["one > 0", "one < 9"]
#: [table, clause, role]
RULES = st.lists(
    st.tuples(st.sampled_from(["first", "second"]), st.sampled_from(CLAUSES), st.sampled_from(["north", "south"])),
    max_size=4,
    unique=True,
)
#: Named like a user.
GUESTS = st.tuples(st.sampled_from(["nina", "sam", "guest"]), st.lists(st.sampled_from(CLAUSES), unique=True).map(sorted))
ASKERS = st.lists(st.one_of(st.sampled_from(sorted(USERS)), GUESTS), min_size=2, max_size=6, unique_by=str)
Asker = str | tuple[str, list[str]]


@pytest.fixture(scope="module")
def asked(prepared: Prepared) -> Iterator[Callable[..., Any]]:
    """The process, as a function of a world."""
    process = subprocess.Popen(
        [str(binaries.superset_python()), "-m", "tests.runtime.superset.identities_process"],
        env=prepared.environment("web"),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    assert json.loads(stdout.readline()) == "ready"

    def ask(**world: Any) -> Any:
        stdin.write(json.dumps(world) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())

    try:
        yield ask
    finally:
        stdin.close()
        process.wait(30)


def identity(
    asker: Asker, dataset: str, changed: str, impersonation: bool, rules: list[tuple[str, str, str]]
) -> tuple[object, ...]:
    """All by which what `asker` is shown may differ from what another one is shown."""
    name, clauses = (asker, []) if isinstance(asker, str) else asker
    role = USERS.get(name) if isinstance(asker, str) else None
    who = ("user" if isinstance(asker, str) else "guest", name)
    return (
        dataset,
        changed,
        TENANTS.get(name) if isinstance(asker, str) else None,
        # Which rules hold cannot be known where the tables are not.
        who if impersonation or dataset == "unreadable" else None,
        name if dataset == "asking" else None,
        frozenset((table, clause) for table, clause, of in rules if of == role) if dataset != "unreadable" else None,
        frozenset(clauses),
    )


#: By identity, the names that were seen for it; and the other way round: over all worlds.
_NAMES: dict[tuple[object, ...], tuple[str, ...]] = {}
_IDENTITIES: dict[str, tuple[object, ...]] = {}


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dataset=st.sampled_from(["both", "asking", "unreadable"]),
    changes=st.integers(0, 1),
    impersonation=st.booleans(),
    rules=RULES,
    askers=ASKERS,
)
@example(
    dataset="both",
    changes=0,
    impersonation=False,
    rules=[("first", "one > 0", "north"), ("second", "one > 0", "south")],
    askers=["nina", "sam", "north-too"],
)
@example(
    dataset="unreadable",
    changes=0,
    impersonation=False,
    rules=[("first", "one > 0", "north")],
    askers=["nina", "sam", "oda"],
)
@example(dataset="both", changes=1, impersonation=True, rules=[], askers=["nina", ("nina", []), ("guest", ["one > 0"])])
def test_names_differ_exactly_where_what_is_shown_may(
    asked: Callable[..., Any],
    dataset: str,
    changes: int,
    impersonation: bool,
    rules: list[tuple[str, str, str]],
    askers: list[Asker],
) -> None:
    found = asked(dataset=dataset, changes=changes, impersonation=impersonation, rules=rules, askers=askers)
    for asker, names in zip(askers, found["names"], strict=True):
        expected = identity(asker, dataset, found["changed"], impersonation, rules)
        assert _NAMES.setdefault(expected, tuple(names)) == tuple(names), "the same is computed twice"
        for name in names:
            assert _IDENTITIES.setdefault(name, expected) == expected, "one is given what is another's"
