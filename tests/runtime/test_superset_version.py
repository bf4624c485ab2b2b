"""A Superset that the project was not tested with is refused, with the module's name and a way out."""

from __future__ import annotations

import subprocess
from importlib import metadata

import pytest

from local import binaries
from runtime import superset_version


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("6.1.0", True),
        ("6.1.7", True),
        ("6.1.0rc2", True),
        ("6.0.0", False),
        ("6.10.0", False),
        ("7.0.0", False),
        ("", False),
    ],
)
def test_patch_releases_of_the_tested_version_are_taken(version: str, expected: bool) -> None:
    assert superset_version.tested(version) is expected


def test_another_version_is_refused_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {superset_version.DISTRIBUTION: "7.0.1"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    with pytest.raises(superset_version.UntestedSupersetError, match=r"runtime\.some_module .*6\.1\.x, and 7\.0\.1"):
        superset_version.require("runtime.some_module")


def test_the_locked_superset_is_a_tested_one() -> None:
    program = "from runtime.superset_version import require; require('here')"
    subprocess.run([str(binaries.superset_python()), "-c", program], check=True)
