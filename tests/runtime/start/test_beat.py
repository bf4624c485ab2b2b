"""Beat without Superset: what it does not load, and that what it sends and writes is what Superset's own would be."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared

pytestmark = pytest.mark.superset


@pytest.fixture(scope="module")
def beat(prepared: Prepared) -> dict[str, Any]:
    """What `beat_process.py` has found."""
    command = [str(binaries.superset_python()), "-m", "tests.runtime.start.beat_process"]
    done = subprocess.run(
        command, env=prepared.environment("beat"), cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_beat_loads_nothing_of_superset(beat: dict[str, Any]) -> None:
    assert beat["absent"] == ["superset", "flask_appbuilder", "pandas", "sqlglot"]


def test_each_job_is_sent_as_superset_would_send_it(beat: dict[str, Any], prepared: Prepared) -> None:
    ours, theirs = beat["messages"]
    assert ours.keys() == {job.name for job in prepared.topology.beat.jobs}
    assert ours == theirs


def test_an_error_says_what_superset_makes_of_it(beat: dict[str, Any]) -> None:
    assert len(beat["errors"]) == 3
    for ours, supersets in beat["errors"]:
        assert ours == supersets


def test_a_charts_event_is_written_as_superset_writes_it(beat: dict[str, Any]) -> None:
    ours, supersets = beat["events"]
    assert ours == supersets
    assert [len(stream) for stream in ours[0]] == [1, 1]
    assert ours[1] is True
