"""The statement timeout of analytic connections: which limit holds, without a database."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.superset.statement_timeout import StatementTimeout, engine_params, mysql_command
from topology.model import Tenant

LIMIT = StatementTimeout(default_seconds=530, most_seconds=540)


class Url:
    """As much of SQLAlchemy's URL as is asked for."""

    def __init__(self, backend: str, driver: str) -> None:
        self.get_backend_name = lambda: backend
        self.get_driver_name = lambda: driver


@pytest.mark.parametrize(
    ("own", "seconds"),
    [
        ({}, 530),
        (engine_params(3), 3),
        (engine_params(540), 540),
        # No task can wait for longer than its own limit, and 0 is no limit at all in PostgreSQL.
        (engine_params(541), 530),
        (engine_params(0), 530),
        (engine_params(-1), 530),
        ({"execution_options": None}, 530),
        ({"execution_options": {"statement_timeout_seconds": "3"}}, 530),
    ],
)
def test_a_databases_own_limit_wins_where_a_task_can_wait_for_it(own: dict[str, Any], seconds: int) -> None:
    assert LIMIT.seconds(own) == seconds


def test_one_command_limits_mysql_in_milliseconds_and_mariadb_in_seconds() -> None:
    _, params = LIMIT(Url("mysql", "mysqldb"), {"pool": 1, **engine_params(3)}, "alice", None, None)
    assert params["connect_args"]["init_command"] == mysql_command(3)
    assert "max_execution_time=3000 " in mysql_command(3)
    assert "max_statement_time=3 " in mysql_command(3)
    assert params["pool"] == 1


@pytest.mark.parametrize(
    ("url", "connect_args"),
    [
        (Url("mysql", "mysqldb"), {"init_command": "SET NAMES utf8mb4"}),
        (Url("sqlite", "pysqlite"), {}),
        (Url("trino", "rest"), {}),
    ],
)
def test_what_an_administrator_set_and_engines_without_a_limit_are_left_alone(url: Url, connect_args: Any) -> None:
    given = {"connect_args": connect_args}
    returned, params = LIMIT(url, given, None, None, None)
    assert returned is url
    assert params == given


#: Of the stack above: a tenant that inherits its limit, a stricter one, and one whose tasks may take longer.
TENANTS = {
    name: Tenant(
        id=name,
        queue=name,
        pool=name,
        users=(),
        roles=(),
        databases=(),
        guests=(),
        soft_time_limit_seconds=soft,
        time_limit_seconds=soft + 60,
        statement_timeout_seconds=statement,
        result_ttl_seconds=None,
        monthly_budget=None,
    )
    for name, statement, soft in (("same", 530, 540), ("strict", 60, 540), ("short", 530, 100), ("long", 3500, 3600))
}


@pytest.mark.parametrize(
    ("tenant", "without_own", "with_300", "with_1000"),
    [
        ("", 530, 300, 530),
        ("unknown", 530, 300, 530),
        ("same", 530, 300, 530),
        ("strict", 60, 60, 60),
        ("short", 100, 100, 100),
        ("long", 3500, 300, 1000),
    ],
)
def test_a_tenants_limit_replaces_the_stacks_and_no_statement_outlives_its_task(
    tenant: str, without_own: int, with_300: int, with_1000: int
) -> None:
    limit = StatementTimeout(530, 540, lambda: TENANTS.get(tenant))
    for own, seconds in (({}, without_own), (engine_params(300), with_300), (engine_params(1000), with_1000)):
        _, params = limit(Url("mysql", "mysqldb"), own, "alice", None, None)
        assert params["connect_args"]["init_command"] == mysql_command(seconds)
