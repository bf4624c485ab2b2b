"""A statement is cancelled by what only it has, on a real PostgreSQL: never a stranger's, and seen gone."""

from __future__ import annotations

import json
import subprocess

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Services

pytestmark = pytest.mark.superset


def test_a_number_of_a_backend_that_is_anothers_by_now_ends_nobody_and_the_right_one_is_seen_gone(
    services: Services,
) -> None:
    command = [str(binaries.superset_python()), str(PROJECT / "tests/runtime/superset/cancelling_process.py")]
    environment = services.libpq_environment() | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [*command, services.analytics_uri, services.stranger_uri, "SELECT slow(50)"],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    # psycopg2's name for it depends on whether the server's last words have been read.
    assert found.pop("told") in (["AdminShutdown"], ["OperationalError"])
    assert found == {
        "tagged": True,
        "its number": ["unknown", True],
        "number, and start of an earlier backend": ["gone", True],
        "the last query of its session": ["unknown", True],
        "a session that is idle": ["gone", True],
        "another tag": ["unknown", True],
        "as another role": ["unknown", True],
        "it stands still": ["running", True],
        "all its own": ["gone", False],
        "once more": ["gone", False],
    }
