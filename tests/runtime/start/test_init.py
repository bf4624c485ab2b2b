"""`runtime.start.init` on a real PostgreSQL and Redis: what it makes, that it can run again, and how it fails."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from local import binaries
from tests.runtime.conftest import DECLARED_LIMIT, PROJECT, Prepared
from topology.model import Topology

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
    # And records of the audit trail: lines of JSON.
    quiet = ("Superset started", "ready after", "Loaded your LOCAL configuration", '{"audit"')
    said = [line for run in runs for line in run.stdout.splitlines() if "INFO" not in line and not line.startswith(quiet)]
    # At each run, of each database: its role may create tables, as the owner of a database may.
    warned = [line for line in said if line.startswith("warning: database ")]
    assert sorted({line.split("'")[1] for line in warned}) == ["analytics", "warehouse"]
    assert len(warned) == 4
    changed = sorted(set(said) - set(warned))
    assert changed == ["another init is at work: waiting for it to end", "updating database 'analytics': allow_dml"]


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


def test_another_administrators_name_renames_the_administrator(prepared: Prepared) -> None:
    sql = prepared.services.sql
    password = sql("SELECT password FROM ab_user WHERE username = 'admin'")
    renamed = prepared.topology.model_copy(update={"admin_username": "root"})
    done = run_init(prepared, renamed)
    assert "administrator 'admin' is called 'root' now" in done.stdout
    assert sql("SELECT username, password FROM ab_user") == f"root|{password}"
    sql("UPDATE ab_user SET username = 'ada' WHERE username = 'root'")
    sql("UPDATE superset_async_steps SET digest = 'ada' WHERE name = 'administrator'")
    assert "administrator 'ada' is called 'admin' now" in run_init(prepared, prepared.topology).stdout


def test_a_database_that_leaves_the_stack_can_be_queried_no_more(prepared: Prepared) -> None:
    """One without datasets is deleted; from one with datasets SQL Lab is taken, and the job's log says so."""
    sql = prepared.services.sql
    only = tuple(database for database in prepared.topology.databases if database.name == "analytics")
    without = prepared.topology.model_copy(update={"databases": only})
    warehouse = sql("SELECT id FROM dbs WHERE database_name = 'warehouse'")
    sql(f"INSERT INTO tables (table_name, database_id) VALUES ('sales', {warehouse})")
    done = run_init(prepared, without)
    assert "warning: database 'warehouse' is no longer in the stack" in done.stdout
    assert "1 datasets of it stay" in done.stdout
    assert sql("SELECT expose_in_sqllab FROM dbs WHERE database_name = 'warehouse'") == "f"
    sql(f"DELETE FROM tables WHERE database_id = {warehouse}")
    assert "no dataset is of it: deleted" in run_init(prepared, without).stdout
    assert sql("SELECT count(*) FROM dbs WHERE database_name = 'warehouse'") == "0"
    assert "registering database 'warehouse'" in run_init(prepared, prepared.topology).stdout
    assert sql("SELECT expose_in_sqllab FROM dbs WHERE database_name = 'warehouse'") == "t"


def test_a_role_that_could_write_is_said_where_its_database_has_no_dml(prepared: Prepared) -> None:
    """With what it can, and how to make one that cannot: the owner of a database creates in its schema."""
    said = (
        "warning: database 'analytics' is declared without DML, and its role 'analyst' can write: it can create objects in "
    )
    assert said + "1 schemas, public among them" in prepared.first_run
    assert "GRANT pg_read_all_data" in prepared.first_run


def run_init(prepared: Prepared, plan: Topology) -> subprocess.CompletedProcess[str]:
    """The init job of another topology on the same services."""
    env = prepared.services.process_environment(plan, "init", "changed-init")
    command = [str(binaries.superset_python()), "-m", "runtime.start.init"]
    done = subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-4000:]
    return done
