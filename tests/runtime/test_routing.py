"""The router: which queue a task of Superset goes to, and that nothing it meets loses a submission."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from runtime.routing import Router
from tests.runtime.stacks import topology

NAMES = {7: "ann", 8: "bob", 9: "stranger"}
CHART = "load_chart_data_into_cache"


def broken(user_id: int) -> str | None:
    raise RuntimeError("the metadata database is away")


CASES: list[tuple[str, Any, Any, str]] = [
    ("sql_lab.get_sql_results", (1, "SELECT 1"), {"username": "alice"}, "tenant-a"),
    ("sql_lab.get_sql_results", (1, "SELECT 1"), {"username": "bob"}, "tenant-b"),
    ("sql_lab.get_sql_results", (1, "SELECT 1"), {"username": "stranger"}, "default"),
    ("sql_lab.get_sql_results", (1, "SELECT 1"), {"username": None}, "default"),
    ("sql_lab.get_sql_results", None, None, "default"),
    (CHART, ({"user_id": 7}, {}), {}, "tenant-a"),
    (CHART, (), {"job_metadata": {"user_id": 8}, "form_data": {}}, "tenant-b"),
    (CHART, ({"user_id": 9}, {}), {}, "default"),
    (CHART, ({"user_id": 99}, {}), {}, "default"),
    (CHART, ({"user_id": None}, {}), {}, "default"),
    (CHART, ({"user_id": None, "guest_token": {"user": {"username": "alice"}}}, {}), {}, "tenant-a"),
    (CHART, ({"user_id": None, "guest_token": {"user": {}}}, {}), {}, "default"),
    ("load_explore_json_into_cache", ({"user_id": 8}, {}, "json", False), {}, "tenant-b"),
    # A report of a tenant's user is no query of the tenant; its kwargs mean something else.
    ("reports.execute", (1,), {"username": "alice"}, "default"),
    ("prune_query", (), {"retention_period_days": 1}, "default"),
]


@pytest.mark.parametrize(("task", "args", "kwargs", "queue"), CASES)
def test_a_tenants_queries_go_to_its_queue_and_all_else_to_the_default(
    task: str, args: Any, kwargs: Any, queue: str
) -> None:
    router = Router(topology("multi-tenant"), username_of=NAMES.get)
    assert router(task, args, kwargs, {}, task=None) == {"queue": queue}


@pytest.mark.parametrize("args", [({"user_id": 7}, {}), ("not metadata",), ()])
def test_an_error_is_logged_and_the_task_goes_to_the_default_queue(args: Any, caplog: pytest.LogCaptureFixture) -> None:
    router = Router(topology("multi-tenant"), username_of=broken)
    with caplog.at_level(logging.ERROR):
        assert router(CHART, args, {}, {}) == {"queue": "default"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_without_tenants_nobody_is_looked_up() -> None:
    router = Router(topology("enterprise"), username_of=broken)
    assert router(CHART, ({"user_id": 7}, {}), {}, {}) == {"queue": "default"}
