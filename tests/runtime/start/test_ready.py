"""`runtime.start.ready` on a real PostgreSQL: it waits for the init job of its own image, and says for what."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared, until

pytestmark = pytest.mark.superset

STEPS = "FROM superset_async_steps WHERE name LIKE 'prepared %'"


def start(prepared: Prepared, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    """The process with what its container has: no secret but one password, and no Superset configuration."""
    whole = prepared.environment("web") | changes
    env = {key: whole[key] for key in ("PATH", "PYTHONPATH", "SUPERSET_ASYNC_TOPOLOGY", "POSTGRES_PASSWORD")}
    command = [str(binaries.superset_python()), "-u", "-m", "runtime.start.ready", *arguments]
    return subprocess.Popen(
        command, env=env, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )


@pytest.fixture
def unprepared(prepared: Prepared) -> Iterator[Prepared]:
    """The database as another image's init left it; afterwards it is prepared again."""
    name = prepared.services.sql(f"SELECT name {STEPS}")
    prepared.services.sql(f"UPDATE superset_async_steps SET name = 'prepared by another image' {STEPS[26:]}")
    yield prepared
    prepared.services.sql(f"DELETE {STEPS}")
    prepared.services.sql(f"INSERT INTO superset_async_steps VALUES ('{name}', '')")


def test_where_all_is_prepared_it_says_nothing(prepared: Prepared) -> None:
    process = start(prepared, "--wait=0")
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def test_it_waits_until_the_init_job_of_its_image_is_through(unprepared: Prepared) -> None:
    process = start(unprepared, "--wait=300")
    assert process.stdout
    assert process.stdout.readline() == "ready: waits for the metadata database: it is not prepared for this image\n"
    done = unprepared.init()
    assert done.returncode == 0, done.stderr
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
    assert unprepared.services.sql(f"SELECT count(*) {STEPS}") == "2"


@pytest.mark.parametrize(
    ("topology", "changes", "reason"),
    [
        ({}, {}, "it is not prepared for this image"),
        ({"database": "analytics"}, {}, "nothing is prepared in it"),
        ({}, {"POSTGRES_PASSWORD": "wr0ng"}, "password authentication failed"),
        ({"port": 1}, {}, "Connection refused"),
    ],
    ids=str,
)
def test_it_gives_up_with_the_reason_and_who_can_help(
    unprepared: Prepared, topology: dict[str, object], changes: dict[str, str], reason: str
) -> None:
    plan = unprepared.topology.model_copy(update={"postgres": unprepared.topology.postgres.model_copy(update=topology)})
    env = unprepared.services.process_environment(plan, "web", "elsewhere") | changes
    process = start(unprepared, "--wait=0", **{key: env[key] for key in ("SUPERSET_ASYNC_TOPOLOGY", "POSTGRES_PASSWORD")})
    out, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert reason in error
    assert "The init job of this image prepares it" in error
    assert "Traceback" not in error
    assert env["POSTGRES_PASSWORD"] not in out + error


def test_a_pod_that_goes_takes_it_along_at_once(unprepared: Prepared) -> None:
    process = start(unprepared, "--wait=300")
    assert process.stdout
    process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    until(lambda: process.poll() is not None, 10, "it ends")
    assert process.returncode == 1
