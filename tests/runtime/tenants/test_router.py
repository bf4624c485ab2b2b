"""The router: which queue a task of Superset goes to with what headers, and that nothing it meets loses a submission."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from runtime.tenants.recognition import Person
from runtime.tenants.router import Router
from tests.runtime.stacks import topology

SQL = "sql_lab.get_sql_results"
CHART = "load_chart_data_into_cache"
PEOPLE = {
    7: Person(username="ann", roles=frozenset({"Alpha"})),
    8: Person(username="bob", roles=frozenset({"Gamma"})),
    9: Person(username="chief", roles=frozenset({"Admin", "Finance"})),
    10: Person(username="board", roles=frozenset({"Board"})),
}


class Known:
    """A directory of the people above, three queries' databases and one dataset's."""

    def user(self, user_id: int) -> Person:
        return PEOPLE.get(user_id, Person())

    def named(self, username: str) -> Person:
        return next((person for person in PEOPLE.values() if person.username == username), Person(username=username))

    def guest(self, token: Mapping[str, Any]) -> Person:
        return Person(roles=frozenset({"Guest"}), guest=token)

    def anonymous(self) -> Person:
        return Person()

    def database_of_query(self, query_id: int) -> str | None:
        return {1: "small", 2: "warehouse"}.get(query_id)

    def database_of_chart(self, form_data: Mapping[str, Any]) -> str | None:
        return "warehouse" if form_data.get("datasource") == "2__table" else None


class Broken(Known):
    """A directory whose metadata database is away."""

    def user(self, user_id: int) -> Person:
        raise RuntimeError("the metadata database is away")

    named: Any = user
    anonymous: Any = user


def router(directory: Known, marked: bool = False, **changes: object) -> Router:
    plan = topology(
        "multi-tenant",
        tenants={
            "tenant-a": {"users": ["alice", "ann"], "soft_time_limit": 50, "time_limit": 60, "statement_timeout": 40},
            "tenant-b": {"users": ["bob"]},
            "finance": {"roles": ["Finance"], "pool": "shared"},
            "heavy": {"databases": ["warehouse"]},
            "acme": {"guests": [{"claim": "user.username", "value": "acme-*"}]},
        },
        urgent={"queue": "priority", "roles": ["Board"], "marker_roles": ["Admin", "Gamma"]},
        **changes,
    )
    return Router(plan, directory, lambda: marked)


def guest(name: str) -> dict[str, Any]:
    return {"user_id": None, "guest_token": {"user": {"username": name}}}


#: Task, arguments, keyword arguments, and the queue without and with the request's mark.
CASES: list[tuple[str, Any, Any, str, str]] = [
    (SQL, (1, "SELECT 1"), {"username": "alice"}, "tenant-a", "tenant-a"),
    (SQL, (1, "SELECT 1"), {"username": "bob"}, "tenant-b", "priority"),
    (SQL, (1, "SELECT 1"), {"username": "chief"}, "finance", "priority"),
    (SQL, (1, "SELECT 1"), {"username": "board"}, "priority", "priority"),
    (SQL, (1, "SELECT 1"), {"username": "stranger"}, "default", "default"),
    (SQL, (2, "SELECT 1"), {"username": "stranger"}, "heavy", "heavy"),
    (SQL, (2, "SELECT 1"), {"username": "alice"}, "tenant-a", "tenant-a"),
    (SQL, (), {"query_id": 2, "username": "stranger"}, "heavy", "heavy"),
    (SQL, (1, "SELECT 1"), {"username": None}, "default", "default"),
    (SQL, (2, "SELECT 1"), {"username": None}, "heavy", "heavy"),
    (CHART, ({"user_id": 7}, {}), {}, "tenant-a", "tenant-a"),
    (CHART, (), {"job_metadata": {"user_id": 8}, "form_data": {}}, "tenant-b", "priority"),
    (CHART, ({"user_id": 99}, {}), {}, "default", "default"),
    (CHART, ({"user_id": 99}, {"datasource": "2__table"}), {}, "heavy", "heavy"),
    (CHART, (), {"job_metadata": {"user_id": 99}, "form_data": {"datasource": "2__table"}}, "heavy", "heavy"),
    (CHART, ({"user_id": None}, {}), {}, "default", "default"),
    (CHART, (guest("acme-eve"), {}), {}, "acme", "acme"),
    (CHART, (guest("alice"), {}), {}, "default", "default"),
    (CHART, (guest("else"), {"datasource": "2__table"}), {}, "heavy", "heavy"),
    ("load_explore_json_into_cache", ({"user_id": 8}, {}, "json", False), {}, "tenant-b", "priority"),
    # A report of a tenant's user is no query of the tenant; its kwargs mean something else.
    ("reports.execute", (1,), {"username": "alice"}, "default", "default"),
    ("prune_query", (), {"retention_period_days": 1}, "default", "default"),
]


@pytest.mark.parametrize(("task", "args", "kwargs", "queue", "urgent"), CASES)
def test_a_query_goes_to_its_tenants_queue_or_the_urgent_one_and_all_else_to_the_default(
    task: str, args: Any, kwargs: Any, queue: str, urgent: str
) -> None:
    assert router(Known())(task, args, kwargs, {}, task=None)["queue"] == queue
    assert router(Known(), marked=True)(task, args, kwargs, {}, task=None)["queue"] == urgent


def test_a_tenants_message_carries_its_name_and_limits_to_whatever_queue() -> None:
    own = {"superset_async_tenant": "tenant-a", "timelimit": [60, 50]}
    assert router(Known())(SQL, (1, ""), {"username": "ann"}) == {"queue": "tenant-a", "headers": own}
    inherited = {"superset_async_tenant": "tenant-b", "timelimit": [600, 540]}
    assert router(Known(), marked=True)(SQL, (1, ""), {"username": "bob"}) == {"queue": "priority", "headers": inherited}
    assert router(Known())(SQL, (1, ""), {"username": "stranger"}) == {"queue": "default"}


@pytest.mark.parametrize(
    ("task", "args", "kwargs"),
    [
        (CHART, ({"user_id": 7}, {}), {}),
        (CHART, ("not metadata",), {}),
        (CHART, (), {}),
        (SQL, None, None),
        (SQL, ("?",), {"username": "ann"}),
    ],
)
def test_an_error_is_logged_and_the_task_goes_to_the_default_queue(
    task: str, args: Any, kwargs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert router(Broken())(task, args, kwargs, {}) == {"queue": "default"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_without_tenants_and_urgent_roles_nobody_is_looked_up() -> None:
    assert Router(topology("enterprise"), Broken())(CHART, ({"user_id": 7}, {}), {}) == {"queue": "default"}
    nothing_marked = Router(topology("multi-tenant", tenants={}), Broken(), lambda: False)
    assert nothing_marked(CHART, ({"user_id": 7}, {}), {}) == {"queue": "default"}


@pytest.mark.parametrize(
    ("queue", "route"),
    [("tenant-a", {"headers": {"superset_async_tenant": "tenant-a"}}), ("priority", {}), ("default", {})],
)
def test_a_task_that_is_sent_again_keeps_its_queue_and_nobody_is_looked_up(
    queue: str, route: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert router(Broken())(SQL, (1, ""), {"username": "bob"}, {"queue": queue}) == route
    assert not caplog.records
