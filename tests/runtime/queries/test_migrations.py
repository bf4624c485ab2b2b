"""This project's tables in the metadata database, from nothing, from version 0.1, and from a version that is not known here."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from runtime.queries import migrations
from tests.runtime.conftest import Services, run_script

VERSIONS = Path(migrations.__file__).parent / "versions"
#: What version 0.1 made, as it made it, and a row of each.
BEFORE_MIGRATIONS = """
CREATE TABLE superset_async_executions (
    kind text NOT NULL, subject text NOT NULL, attempt integer NOT NULL, task_id text NOT NULL,
    tenant text NOT NULL DEFAULT '', queue text NOT NULL, username text NOT NULL DEFAULT '',
    database_name text NOT NULL DEFAULT '', writes boolean NOT NULL DEFAULT false, worker text NOT NULL,
    submitted_at timestamptz, started_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz, outcome text,
    PRIMARY KEY (kind, subject, attempt)
);
CREATE INDEX superset_async_executions_started_at ON superset_async_executions (started_at);
CREATE INDEX superset_async_executions_running ON superset_async_executions (kind, subject) WHERE ended_at IS NULL;
CREATE TABLE superset_async_messages (
    query_id integer PRIMARY KEY, message text NOT NULL, sent_at timestamptz NOT NULL DEFAULT now(),
    sent_again boolean NOT NULL DEFAULT false
);
CREATE INDEX superset_async_open_queries ON query (user_id) WHERE status IN ('pending', 'running', 'scheduled', 'fetching');
CREATE TABLE superset_async_steps (name text PRIMARY KEY, digest text NOT NULL);
INSERT INTO superset_async_executions (kind, subject, attempt, task_id, queue, worker) VALUES ('sql', '1', 1, 't', 'q', 'w');
INSERT INTO superset_async_messages (query_id, message) VALUES (1, '{}');
INSERT INTO superset_async_steps VALUES ('roles', 'd');
"""
#: As much of Superset's own schema as is leant on.
SUPERSET = "CREATE TABLE query (id integer PRIMARY KEY, user_id integer, status text)"
SHAPE = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_name LIKE 'superset_async_%' ORDER BY 1, 2;
SELECT indexname, indexdef FROM pg_indexes WHERE indexname LIKE 'superset_async_%' ORDER BY 1;
"""


def _assigned(file: Path) -> dict[str, Any]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        str(target.id): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("revision", "down_revision")
    }


def test_the_revisions_are_one_line_that_ends_at_the_head() -> None:
    found = [_assigned(file) for file in sorted(VERSIONS.glob("[0-9]*.py"))]
    assert [each["down_revision"] for each in found] == [None, *(each["revision"] for each in found[:-1])]
    assert found[-1]["revision"] == migrations.HEAD


class Database:
    """A database of its own, with as much of Superset in it as is leant on."""

    def __init__(self, services: Services, name: str) -> None:
        self._services, self._name = services, name
        services.sql(f"CREATE DATABASE {name}", database="postgres")
        self.sql(SUPERSET)

    def sql(self, statement: str) -> str:
        """The rows of a statement."""
        return self._services.sql(statement, database=self._name)

    def migrate(self) -> list[str | None]:
        """What each of two runs found, or the refusal."""
        password = quote((self._services.folder / "postgres-password").read_text(), safe="")
        url = f"postgresql+psycopg2://superset:{password}@127.0.0.1:{self._services.postgres_port}/{self._name}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])}
        return run_script("queries.migrations_process", environment, url)


@pytest.mark.superset
def test_version_0_1_is_taken_as_it_is_and_ends_as_a_new_database_does(services: Services) -> None:
    old, new = Database(services, "of_version_0_1"), Database(services, "of_nothing")
    old.sql(BEFORE_MIGRATIONS)
    assert old.migrate() == new.migrate() == [None, migrations.HEAD]
    assert old.sql("SELECT count(*) FROM superset_async_executions; SELECT count(*) FROM superset_async_messages") == "1\n1"
    assert old.sql(SHAPE) == new.sql(SHAPE)


@pytest.mark.superset
def test_tables_of_a_newer_version_are_not_touched(services: Services) -> None:
    database = Database(services, "of_a_newer_version")
    assert database.migrate() == [None, migrations.HEAD]
    database.sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    (refusal,) = database.migrate()
    assert refusal is not None and "revision 9999" in refusal and "newer one made them" in refusal
    assert database.sql(f"SELECT version_num FROM {migrations.VERSION_TABLE}") == "9999"
