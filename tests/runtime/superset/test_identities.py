"""Whose data a cached chart is, in any world: what differs for who asks has another name, and what does not has the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared

pytestmark = [pytest.mark.superset, pytest.mark.further]

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


class Process:
    """One that is asked; `seed` is Python's for the order of sets."""

    def __init__(self, prepared: Prepared, seed: int) -> None:
        self._process = subprocess.Popen(
            [str(binaries.superset_python()), "-m", "tests.runtime.superset.identities_process"],
            env=prepared.environment("web") | {"PYTHONHASHSEED": str(seed)},
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, **world: Any) -> Any:
        """Its names."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(world) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Have it end."""
        self._process.communicate()


@pytest.fixture(scope="module")
def asked(prepared: Prepared) -> Iterator[Callable[..., Any]]:
    """Two processes with other orders of sets, as a function of a world: both have the same names."""
    prepared.services.impersonated(*USERS, "guest")
    with ExitStack() as stack:
        processes: list[Process] = []
        for seed in (1, 7):
            processes.append(Process(prepared, seed))
            stack.callback(processes[-1].close)

        def ask(**world: Any) -> Any:
            first, second = (process.ask(**world) for process in processes)
            assert first == second, "a web process looks for another name than a worker's"
            return first

        yield ask


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
