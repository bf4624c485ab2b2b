"""Servers and Sentinels, started by the pods' own scripts, keep every write through every failure (see sentinel_world.py)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tls import redis_server

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.services
NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--"]


@pytest.fixture(scope="module")
def isolated() -> list[str]:
    """What to put before a command for a network and mounts of its own; skips where the kernel allows none."""
    missing = [program for program in ("unshare", "mount", "ip") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: pods' names need a network of their own")
    tried = subprocess.run([*NAMESPACES, "ip", "link", "set", "lo", "up"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network namespace here: {tried.stderr.strip()}")
    return NAMESPACES


def steps_of(isolated: list[str], folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    """What sentinel_world.py saw to hold, in `folder`."""
    done = subprocess.run(
        [*isolated, sys.executable, str(PROJECT / "tests/components/sentinel_world.py"), str(folder), *options],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {step["step"]: step for line in done.stdout.splitlines() if line.startswith("{") for step in [json.loads(line)]}


def test_no_failure_loses_a_write(isolated: list[str], tmp_path: Path) -> None:
    assert len(steps_of(isolated, tmp_path / "world")) == 19


def test_over_tls_a_replica_takes_over_and_a_renewed_certificate_is_taken(isolated: list[str], tmp_path: Path) -> None:
    """Servers, Sentinels, probes and clients that verify names, with the names that the stack says a certificate needs."""
    redis_server()
    assert len(steps_of(isolated, tmp_path / "world", "--tls")) == 10
