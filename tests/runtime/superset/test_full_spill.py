"""A result that spills to a disk without room: said in words, nothing half written, and all as before once there is room."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from local import binaries
from runtime.queries import query_tasks
from tests.runtime.conftest import PROJECT, Prepared
from topology.settings.caching import Spill

pytestmark = pytest.mark.superset

ALONE = ("unshare", "--user", "--map-root-user", "--mount", "--")


def test_a_disk_without_room_refuses_a_large_result_in_words_and_takes_it_again(prepared: Prepared, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a mount namespace of its own")
    spill = Spill(above_bytes=2**16, folder=str(tmp_path / "results"), claim=None)
    caching = prepared.topology.caching.model_copy(update={"spill": spill})
    plan = prepared.topology.model_copy(update={"caching": caching})
    env = prepared.services.process_environment(plan, "worker", "full-spill")
    command = [*ALONE, str(binaries.superset_python()), "-m", "tests.runtime.superset.full_spill_process"]
    done = subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "said": query_tasks.READ_NOT_KEPT,
        "kind": "RESULTS_BACKEND_ERROR",
        "kept": [True, False],
        "small": [True, True],
        "files": 1,
        "again": [True, True],
    }
