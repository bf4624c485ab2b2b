"""A kept connection is as a new one for its next user: everything that a session can be left with, left in a real one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.conftest import Services, run_script
from tests.runtime.stacks import topology
from tests.runtime.superset.leaks import LEAKS
from topology.problems import MendableError

pytestmark = pytest.mark.superset


@pytest.fixture(scope="module")
def kept(services: Services) -> dict[str, Any]:
    services.sql("GRANT pg_monitor TO analyst")
    environment = services.process_environment(topology("minimal"), "worker", "kept")
    return run_script("superset.kept_process", environment, services.analytics_uri)


@pytest.mark.parametrize("what", LEAKS)
def test_nothing_that_a_user_leaves_in_a_session_meets_the_next_one(kept: dict[str, Any], what: str) -> None:
    found = kept["leaks"][what]
    assert found["same session"], "the session was not kept, so that this says nothing"
    assert found["found"] is None, found
    # It was left: only a failed transaction begins with an error.
    assert ("Error" in str(found["said"]) or "DivisionByZero" in str(found["said"])) == (what == "a failed transaction"), (
        found
    )


def test_a_session_is_one_ways_to_connect_and_of_a_query_that_ended_well(kept: dict[str, Any]) -> None:
    assert kept["shared"] == {
        "the same": True,
        "another user's URI": False,
        "another limit": False,
        "writing": False,
        "many": False,
        "after a query that was stopped": False,
        "after the server ended it": False,
    }


def test_a_child_keeps_two_connections(kept: dict[str, Any]) -> None:
    assert kept["bound"] == 2


def test_the_guards_hold_on_a_kept_connection(kept: dict[str, Any]) -> None:
    assert "ended this statement after 2s" in kept["guards"]["limit"]
    assert "read-only transaction" in kept["guards"]["writes"]


def test_a_database_that_is_written_to_keeps_none() -> None:
    assert [each.keep_connections for each in topology("local").databases] == [True]
    reached: dict[str, object] = {"cidrs": ["10.20.0.0/16"], "ports": [5432]}
    declared = topology("minimal", databases={"a": reached, "b": reached | {"keep_connections": True}}).databases
    assert [each.keep_connections for each in declared] == [False, True]
    with pytest.raises(MendableError, match=r"databases\.a\.keep_connections"):
        topology("minimal", databases={"a": reached | {"keep_connections": True, "allow_dml": True}})
