"""Each way by which a role of PostgreSQL can write is said, one grant at a time; a role that only reads is said nothing of."""

from __future__ import annotations

import pytest

from runtime.superset.writable_roles import ASKED
from tests.runtime.conftest import Services

DATABASE = "grants"
SET_UP = """
CREATE SCHEMA app;
CREATE TABLE app.sales (id int, note text);
CREATE VIEW app.recent AS SELECT * FROM app.sales;
CREATE SEQUENCE app.numbers;
CREATE FUNCTION app.add() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO app.sales VALUES (1)';
REVOKE EXECUTE ON FUNCTION app.add() FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE ROLE grants_writer;
GRANT USAGE ON SCHEMA app TO grants_writer;
GRANT INSERT ON app.sales TO grants_writer;
CREATE ROLE grants_reader;
GRANT USAGE ON SCHEMA app TO grants_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO grants_reader;
"""
TABLE = "can change 1 tables, app.sales among them"


@pytest.fixture(scope="module")
def database(services: Services) -> str:
    services.sql(f"CREATE DATABASE {DATABASE}", database="postgres")
    services.sql(SET_UP, database=DATABASE)
    return DATABASE


def told(services: Services, database: str, grants: str, role: str = "grants_reader") -> list[str]:
    """What is said of the role while it has these grants."""
    rows = services.sql(f"BEGIN; {grants}; SET LOCAL ROLE {role}; {ASKED}; ROLLBACK", database=database)
    assert all(row.startswith(f"{role}|") for row in rows.splitlines()), rows
    return [row.partition("|")[2] for row in rows.splitlines()]


def test_a_role_that_reads_is_said_nothing_of(services: Services, database: str) -> None:
    assert told(services, database, "SELECT") == []
    assert told(services, database, "GRANT pg_read_all_data TO grants_reader") == []


@pytest.mark.parametrize(
    ("grants", "says"),
    [
        *((f"GRANT {what} ON app.sales TO grants_reader", TABLE) for what in ("INSERT", "UPDATE", "DELETE", "TRUNCATE")),
        ("GRANT UPDATE (note) ON app.sales TO grants_reader", TABLE),
        ("GRANT INSERT (id) ON app.sales TO grants_reader", TABLE),
        ("GRANT INSERT ON app.recent TO grants_reader", "can change 1 tables, app.recent among them"),
        ("GRANT DELETE ON app.sales TO PUBLIC", TABLE),
        ("GRANT grants_writer TO grants_reader", TABLE),
        ("ALTER TABLE app.sales OWNER TO grants_reader", TABLE),
        ("GRANT CREATE ON SCHEMA app TO grants_reader", "can create objects in 1 schemas, app among them"),
        ("ALTER SCHEMA app OWNER TO grants_reader", "can create objects in 1 schemas, app among them"),
        (f"GRANT CREATE ON DATABASE {DATABASE} TO grants_reader", "can create schemas"),
        ("GRANT UPDATE ON SEQUENCE app.numbers TO grants_reader", "can move 1 sequences, app.numbers among them"),
        (
            "GRANT EXECUTE ON FUNCTION app.add() TO grants_reader",
            "can execute 1 functions as their owners, app.add() among them",
        ),
        (
            "ALTER ROLE grants_reader NOINHERIT; GRANT grants_writer TO grants_reader",
            "can become 1 roles, grants_writer among them",
        ),
        ("GRANT pg_write_all_data TO grants_reader", "is a member of pg_write_all_data"),
        ("ALTER ROLE grants_reader CREATEROLE", "can create roles"),
        ("ALTER ROLE grants_reader CREATEDB", "can create databases"),
        ("ALTER ROLE grants_reader SUPERUSER", "is a superuser"),
    ],
)
def test_each_way_to_write_is_said(services: Services, database: str, grants: str, says: str) -> None:
    assert says in told(services, database, grants)
