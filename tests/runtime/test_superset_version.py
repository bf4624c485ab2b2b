"""A Superset that the project was not tested with is refused, with the module's name and a way out."""

from __future__ import annotations

import subprocess
from importlib import metadata

import pytest

from local import binaries
from runtime.environment import versions


@pytest.mark.parametrize(
    ("installed", "expected"),
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
def test_patch_releases_of_the_tested_version_are_taken(installed: str, expected: bool) -> None:
    assert versions.tested("apache-superset", installed) is expected


def test_another_version_is_refused_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"apache-superset": "7.0.1"}
    monkeypatch.setattr(metadata, "version", installed.__getitem__)
    with pytest.raises(versions.UntestedVersionError, match=r"runtime\.some_module .*6\.1\.x, and 7\.0\.1"):
        versions.require("runtime.some_module")


@pytest.mark.superset
def test_the_locked_superset_is_a_tested_one() -> None:
    program = "from runtime.environment.versions import require; require('here')"
    subprocess.run([str(binaries.superset_python()), "-c", program], check=True)
