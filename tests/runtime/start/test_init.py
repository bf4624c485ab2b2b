"""`runtime.start.init` on a real PostgreSQL and Redis: what it makes, that it can run again, and how it fails."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.runtime.conftest import DECLARED_LIMIT, Prepared

pytestmark = pytest.mark.superset


def test_one_run_makes_schema_roles_administrator_and_databases(prepared: Prepared) -> None:
    sql = prepared.services.sql
    assert "creating administrator 'admin'" in prepared.first_run
    assert sql("SELECT count(*) FROM alembic_version") == "1"
    assert set(sql("SELECT name FROM ab_role").split()) >= {"Admin", "Alpha", "Gamma", "sql_lab", "Public"}
    assert int(sql("SELECT count(*) FROM ab_permission_view_role")) > 400
    assert sql("SELECT username FROM ab_user") == "admin"
    assert sql("SELECT database_name, allow_run_async, allow_dml, cache_timeout FROM dbs WHERE id = 1") == "analytics|t|f|"
    extra = sql("SELECT extra::json->'engine_params' FROM dbs WHERE id = 1")
    options = {"statement_timeout_seconds": DECLARED_LIMIT, "read_only": True}
    assert json.loads(extra) == {"execution_options": options}
    masked = sql("SELECT sqlalchemy_uri FROM dbs WHERE id = 1")
    assert "analyst:XXXXXXXXXX@" in masked
    permissions = sql("SELECT v.name FROM ab_permission_view p JOIN ab_view_menu v ON v.id = p.view_menu_id")
    assert {"[analytics].(id:1)", "[analytics].[analytics].[public]"} <= set(permissions.splitlines())


def test_later_runs_change_only_what_differs_never_a_password_and_one_waits_for_the_other(prepared: Prepared) -> None:
    def state() -> str:
        return prepared.services.sql(
            "SELECT password FROM ab_user WHERE username = 'admin'; SELECT count(*) FROM ab_permission_view_role;"
            "SELECT id, encode(password, 'hex'), extra FROM dbs WHERE id = 1"
        )

    before = state()
    # Someone changed it by hand; the stack's word is what counts.
    prepared.services.sql("UPDATE dbs SET allow_dml = true WHERE id = 1")
    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(lambda _: prepared.init(ADMIN_PASSWORD="another-password"), range(2)))
    assert [run.returncode for run in runs] == [0, 0], runs
    assert state() == before
    assert prepared.services.sql("SELECT allow_dml FROM dbs WHERE id = 1") == "f"
    quiet = ("Superset started", "ready after", "Loaded your LOCAL configuration")
    said = [line for run in runs for line in run.stdout.splitlines() if "INFO" not in line and not line.startswith(quiet)]
    assert sorted(said) == ["another init is at work: waiting for it to end", "updating database 'analytics': allow_dml"]


def test_a_wrong_password_ends_it_with_the_reason_and_without_the_password(prepared: Prepared) -> None:
    done = prepared.init("--wait=1", POSTGRES_PASSWORD="wr0ng")
    assert done.returncode == 1
    assert "PostgreSQL at 127.0.0.1" in done.stderr
    assert "password authentication failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "wr0ng" not in done.stdout + done.stderr


def test_a_database_of_a_newer_superset_is_not_touched(prepared: Prepared) -> None:
    head = prepared.services.sql("SELECT version_num FROM alembic_version")
    prepared.services.sql("UPDATE alembic_version SET version_num = 'from-the-future'")
    try:
        done = prepared.init()
    finally:
        found = prepared.services.sql(f"UPDATE alembic_version SET version_num = '{head}' RETURNING old.version_num")
    assert done.returncode == 1
    assert "is at revision from-the-future, which this Superset" in done.stderr
    assert "newer" in done.stderr
    assert found == "from-the-future"
