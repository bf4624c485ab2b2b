"""The statement timeout of analytic connections: which limit holds, without a database."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.statements import StatementTimeout, engine_params, mysql_command

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
