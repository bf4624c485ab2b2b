"""The files that pods mount are all there, and the probe of processes that write a file while they work."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from components import scripts
from components.superset import APP, recently_written
from components.workers import HEARTBEAT

PROJECT = Path(__file__).resolve().parents[2]


def test_the_names_are_those_of_the_files() -> None:
    folder = Path(scripts.__file__).parent
    assert set(get_args(scripts.Script)) == {
        path.name for path in folder.iterdir() if path.suffix in (".sh", ".sql", ".conf")
    }


def test_a_files_text_comes_as_it_is() -> None:
    assert scripts.texts("join.sh", "roles.sql").keys() == {"join.sh", "roles.sql"}
    assert scripts.text("join.sh") == (Path(scripts.__file__).parent / "join.sh").read_text()


def test_no_component_holds_shell_in_a_string() -> None:
    """A script in a string is one that shellcheck does not see."""
    shell = re.compile(r'"sh", "-c"|^set -eu$|^#!/bin/', re.MULTILINE)
    assert shell.search('command=["sh", "-c", "exit"]')
    found = [path.name for path in (PROJECT / "components").rglob("*.py") if shell.search(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("written_seconds_ago", "name", "healthy"),
    [
        (0, "heartbeat", True),
        (50, "heartbeat", True),
        (3600, "heartbeat", False),
        (0, "another", False),
        (0, "heartbeat.db", True),
    ],
)
def test_a_process_that_writes_no_more_is_unhealthy(
    written_seconds_ago: int, name: str, healthy: bool, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.touch()
    moment = file.stat().st_mtime - written_seconds_ago
    os.utime(file, (moment, moment))
    prefix = str(tmp_path / Path(HEARTBEAT).name)
    command = [part.replace(APP, str(PROJECT), 1) for part in recently_written(1800, prefix)[:-1]] + [prefix]
    assert (subprocess.run(command, check=False).returncode == 0) == healthy


def test_without_any_file_it_is_unhealthy(tmp_path: Path) -> None:
    command = [str(PROJECT / "runtime/start/recently_written.sh"), "60", str(tmp_path / "heartbeat")]
    assert subprocess.run(["sh", *command], check=False).returncode == 1
