"""Behind a real PgBouncer: the metadata database works, no setting meets another client, and who cannot be served is told."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared, run_script, until
from tests.runtime.pooler import PROGRAM, pooler
from tests.runtime.queries.conftest import Worker
from tests.runtime.queries.test_lost_queries import Web as Submitting

pytestmark = [
    pytest.mark.superset,
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"),
]


@pytest.fixture(scope="module")
def port(prepared: Prepared) -> Iterator[int]:
    # Below /tmp: PgBouncer's user must reach it.
    with tempfile.TemporaryDirectory() as folder, pooler(prepared.services, Path(folder), 4) as port:
        yield port


def behind(prepared: Prepared, port: int) -> Prepared:
    """The stack with its metadata database behind the pooler."""
    postgres = prepared.topology.postgres.model_copy(update={"port": port})
    return replace(prepared, topology=prepared.topology.model_copy(update={"postgres": postgres}))


def test_two_init_jobs_end_behind_it_and_leave_no_lock(prepared: Prepared, port: int) -> None:
    env = prepared.services.process_environment(behind(prepared, port).topology, "init", "pooled-init")
    command = [str(binaries.superset_python()), "-m", "runtime.start.init"]

    def init(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True)

    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(init, range(2)))
    assert [run.returncode for run in runs] == [0, 0], runs
    assert prepared.services.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"


@pytest.mark.further
def test_the_bound_of_queries_in_flight_the_reaper_and_a_worker_work_behind_it(prepared: Prepared, port: int) -> None:
    """With half as many connections of the server as there are requests in the same moment."""
    pooled, services = behind(prepared, port), prepared.services
    web = Submitting(pooled, pooled.topology)
    try:
        web.user("bob")
        web.bounds(1000, 5)
        assert web.at_once("bob", charts=0, queries=10) == [202] * 5 + [429] * 5
        web.sweep(1, 11)
        assert services.sql("SELECT count(*) FROM query WHERE status = 'pending'") == "5"
        worker = Worker(pooled, "pooled").start()
        try:
            succeeded = "SELECT count(*) FROM query WHERE status = 'success'"
            until(lambda: services.sql(succeeded) == "5", 120, "all are executed")
            recorded = "SELECT count(*) FROM superset_async_executions WHERE outcome = 'success'"
            until(lambda: services.sql(recorded) == "5", 60, "and recorded")
            assert web.at_once("bob", charts=0, queries=2) == [202] * 2
        finally:
            worker.stop()
    finally:
        web.process.kill()
        web.process.wait(20)
    assert services.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"


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


@pytest.mark.parametrize(
    ("mode", "keep", "autocommit", "said"),
    [
        ("transaction", "no", "no", ""),
        ("transaction", "yes", "no", "set databases.<name>.keep_connections to false"),
        ("transaction", "no", "yes", "take isolation_level out"),
        ("session", "no", "no", ""),
        ("statement", "no", "no", "set pool_mode = transaction in the pooler"),
        # Nobody is in between.
        ("", "yes", "no", ""),
        ("", "no", "yes", ""),
    ],
)
def test_a_database_behind_a_pooler_that_cannot_be_served_executes_nothing_and_says_what_to_declare(
    prepared: Prepared, mode: str, keep: str, autocommit: str, said: str
) -> None:
    direct = prepared.services.analytics_uri
    with ExitStack() as stack:
        uri = direct
        if mode:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = stack.enter_context(pooler(prepared.services, folder, 1, mode))
            uri = direct.replace(f":{prepared.services.postgres_port}/", f":{port}/")
        found = run_script("superset.pooled_process", {"PYTHONPATH": str(PROJECT)}, uri, "yes", keep, autocommit)
    if said:
        kind, words = found["result"]
        assert kind == "NotSupportedError", words
        assert said in words and "the server's own address" in words
    else:
        assert found["result"] == 7
    assert found["set"] == ["0", "off", "other"]
