"""Behind a real PgBouncer in transaction mode: the metadata database works, and no setting meets another client."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared
from tests.runtime.pooler import PROGRAM, pooler

pytestmark = [
    pytest.mark.superset,
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"),
]


@pytest.fixture(scope="module")
def port(prepared: Prepared) -> Iterator[int]:
    # Below /tmp: PgBouncer's user must reach it.
    with tempfile.TemporaryDirectory() as folder, pooler(prepared.services, Path(folder), 4) as port:
        yield port


def test_two_init_jobs_end_behind_it_and_leave_no_lock(prepared: Prepared, port: int) -> None:
    postgres = prepared.topology.postgres.model_copy(update={"port": port})
    behind = prepared.topology.model_copy(update={"postgres": postgres})
    env = prepared.services.process_environment(behind, "init", "pooled-init")
    command = [str(binaries.superset_python()), "-m", "runtime.start.init"]

    def init(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True)

    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(init, range(2)))
    assert [run.returncode for run in runs] == [0, 0], runs
    assert prepared.services.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"


def test_a_statement_is_cancelled_behind_it_and_its_tag_and_limits_meet_no_other_client(
    prepared: Prepared, port: int
) -> None:
    uri = prepared.services.analytics_uri.replace(f":{prepared.services.postgres_port}/", f":{port}/")
    env = prepared.services.libpq_environment() | {"PYTHONPATH": str(PROJECT)}
    command = [str(binaries.superset_python()), str(PROJECT / "tests/runtime/superset/cancelling_process.py")]
    done = subprocess.run(
        [*command, uri, prepared.services.stranger_uri, "SELECT slow(50)"],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["all its own"] == ["gone", False]
    assert found["another tag"] == ["unknown", True]
    psql = [str(binaries.postgres_program("psql")), uri, "--no-psqlrc", "-Atc"]
    names = ("application_name", "statement_timeout", "transaction_read_only")
    asked = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    name, limit, read_only = (
        subprocess.run([*psql, asked], env=env, check=True, capture_output=True, text=True).stdout.strip().split("|")
    )
    assert (name, limit, read_only) == ("psql", "0", "off")
