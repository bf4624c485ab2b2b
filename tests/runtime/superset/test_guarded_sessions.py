"""Limits and read-only sessions on a real PostgreSQL, against a user who tries to lift them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Services

pytestmark = pytest.mark.superset

#: Ways to write in a session that only reads, each past the words that are refused: by a function, in one text, by an error.
WRITES = [
    ["SELECT lifting()", "INSERT INTO guarded VALUES (1)"],
    ["SELECT lifting(), writing()"],
    ["SELECT 1", "SELECT lifting()", "SELECT writing()"],
    ["SELECT 3 AS x INTO made"],
    ["SELECT 1; COMMIT; BEGIN READ WRITE; INSERT INTO guarded VALUES (1); COMMIT"],
    ["SELECT '\\'; COMMIT; INSERT INTO guarded VALUES (1); SELECT ';'"],
    ["WITH w AS (INSERT INTO guarded VALUES (1) RETURNING 1) SELECT * FROM w"],
    ["EXPLAIN ANALYZE INSERT INTO guarded VALUES (1)"],
    ["SET default_transaction_read_only=off", "INSERT INTO guarded VALUES (1)"],
]
SCHEMA = """
CREATE TABLE guarded (n integer);
CREATE FUNCTION lifting() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('default_transaction_read_only', 'off', false);
    PERFORM set_config('statement_timeout', '0', false);
    PERFORM set_config('client_connection_check_interval', '0', false);
    PERFORM set_config('transaction_read_only', 'off', false);
    RETURN 'lifted';
END $$;
CREATE FUNCTION unlimited() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('statement_timeout', '0', false);
    RETURN 'unlimited';
END $$;
CREATE FUNCTION writing() RETURNS text LANGUAGE sql AS $$ INSERT INTO guarded VALUES (2) RETURNING 'written' $$;
GRANT ALL ON guarded TO analyst;
"""


@pytest.fixture(scope="module")
def execute(services: Services) -> Any:
    services.sql(SCHEMA, database="analytics")

    def run(*scripts: list[str], read_only: bool) -> list[list[Any]]:
        command = [str(binaries.superset_python()), str(PROJECT / "tests/runtime/superset/guarded_process.py")]
        asked = json.dumps([{"read_only": read_only, "statements": script} for script in scripts])
        environment = services.libpq_environment() | {"PYTHONPATH": str(PROJECT)}
        done = subprocess.run(
            [*command, services.analytics_uri], input=asked, env=environment, check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_session_without_dml_cannot_be_made_to_write(execute: Any, services: Services) -> None:
    for script, found in zip(WRITES, execute(*WRITES, read_only=True), strict=True):
        assert isinstance(found[-1], str) and ("read" in found[-1] or "not executed" in found[-1]), (script, found)
    assert services.sql("SELECT count(*), to_regclass('made') FROM guarded", database="analytics") == "0|"


def test_the_limit_of_the_next_statement_is_the_databases_whatever_the_last_one_set(execute: Any) -> None:
    lifted = ["SELECT unlimited()", "SHOW statement_timeout", "SELECT slow(60)"]
    in_blocks = ["BEGIN", "SELECT unlimited()", "COMMIT", "SELECT slow(60)"]
    for found in execute(lifted, in_blocks, read_only=False):
        assert "ended this statement after 2s" in found[-1], found
    assert execute(lifted, read_only=False)[0][1] == ["2s"]
    refused = execute(["SET statement_timeout = 0", "SELECT 1"], read_only=False)[0]
    assert len(refused) == 1 and "not executed" in refused[0]


def test_nothing_that_is_set_outlives_its_transaction(execute: Any) -> None:
    """Behind a pooler in transaction mode the next client would get it."""
    for read_only in (True, False):
        found = execute(["SELECT 1", "SHOW statement_timeout"], read_only=read_only)[0]
        assert found == [[1], ["2s"], {"set_for_the_session": []}]
