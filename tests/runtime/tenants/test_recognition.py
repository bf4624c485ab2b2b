"""Whose a query is: claims before users before roles before databases, and the first declared of those that claim the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.tenants.recognition import NOBODY, Person, Recognition
from topology.model import Tenant
from topology.settings.tenants import GuestClaim


def tenant(
    name: str,
    users: tuple[str, ...] = (),
    roles: tuple[str, ...] = (),
    databases: tuple[str, ...] = (),
    guests: tuple[tuple[str, str], ...] = (),
) -> Tenant:
    return Tenant(
        id=name,
        queue=name,
        pool=name,
        users=users,
        roles=roles,
        databases=databases,
        guests=tuple(GuestClaim(claim=claim, value=value) for claim, value in guests),
        soft_time_limit_seconds=20,
        time_limit_seconds=30,
        statement_timeout_seconds=10,
        result_ttl_seconds=None,
        monthly_budget=None,
    )


names = st.text("abc", min_size=1, max_size=1)
few = st.lists(names, max_size=2).map(tuple)
claims = st.lists(st.tuples(st.sampled_from(["user.username", "org"]), names), max_size=2).map(tuple)
tenants = st.lists(st.tuples(few, few, few, claims), max_size=4).map(
    lambda rules: [tenant(f"t{place}", *rule) for place, rule in enumerate(rules)]
)
people = st.one_of(
    st.builds(Person, username=st.none() | names, roles=st.frozensets(names, max_size=2)),
    st.builds(
        lambda name, org, roles: Person(roles=roles, guest={"user": {"username": name}, "org": org}),
        names,
        names | st.lists(names, max_size=2),
        st.frozensets(names, max_size=2),
    ),
)


def specified(declared: list[Tenant], person: Person, database: str | None) -> str:
    """The rule as the stack's documentation words it, step by step, with the tenants in their order."""
    guest: dict[str, Any] = dict(person.guest or {})
    claimed = {"user.username": [guest["user"]["username"]], "org": guest["org"]} if guest else {}
    steps = [
        lambda one: any(claim.value in claimed.get(claim.claim, ()) for claim in one.guests),
        lambda one: not guest and person.username in one.users,
        lambda one: bool(person.roles & set(one.roles)),
        lambda one: database in one.databases,
    ]
    return next((one.id for step in steps for one in declared if step(one)), NOBODY)


@given(tenants, people, st.none() | names)
def test_the_first_step_that_any_tenant_passes_decides(declared: list[Tenant], person: Person, database: str | None) -> None:
    recognition = Recognition(declared)
    found = recognition.of_query(person, lambda: database)
    assert found == specified(declared, person, database)
    # Whatever is queried, a person's own tenant is the same: caches are kept apart by it.
    assert recognition.of_person(person) in (found, NOBODY)
    assert recognition.of_person(person) == specified(declared, person, None)


CLAIMS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("user.username", "eve", {"user": {"username": "eve"}}, True),
    ("user.username", "eve", {"user": {"username": "eve2"}}, False),
    ("user.username", "acme-*", {"user": {"username": "acme-eve"}}, True),
    ("user.username", "acme-*", {"user": {"username": "acm"}}, False),
    ("user.username", "*", {"user": {"username": "anybody"}}, True),
    ("user.username", "eve", {"user": "eve"}, False),
    ("user", "*", {"user": {"username": "eve"}}, False),
    ("orgs", "acme", {"orgs": ["other", "acme"]}, True),
    ("orgs", "acme", {"orgs": []}, False),
    ("resources.id", "12", {"resources": [{"type": "dashboard", "id": 7}, {"type": "dashboard", "id": 12}]}, True),
    ("internal", "true", {"internal": True}, True),
    ("internal", "*", {"internal": None}, False),
    ("absent", "*", {}, False),
]


@pytest.mark.parametrize(("claim", "value", "token", "matches"), CLAIMS)
def test_a_claim_is_found_at_its_path_through_lists_and_by_its_beginning(
    claim: str, value: str, token: dict[str, Any], matches: bool
) -> None:
    recognition = Recognition([tenant("acme", guests=((claim, value),))])
    assert recognition.of_person(Person(guest=token)) == ("acme" if matches else NOBODY)


def test_a_guest_who_calls_itself_like_a_user_is_not_that_user() -> None:
    recognition = Recognition([tenant("acme", users=("eve",))])
    assert recognition.of_person(Person(username="eve")) == "acme"
    assert recognition.of_person(Person(guest={"user": {"username": "eve"}})) == NOBODY


def test_the_database_is_looked_up_only_where_nothing_else_decides() -> None:
    def never() -> str | None:
        raise AssertionError("looked up")

    with_database = Recognition([tenant("acme", users=("eve",)), tenant("base", databases=("big",))])
    assert with_database.of_query(Person(username="eve"), never) == "acme"
    assert Recognition([tenant("acme", users=("eve",))]).of_query(Person(username="bob"), never) == NOBODY
    assert with_database.of_query(Person(username="bob"), lambda: "big") == "base"
