"""Statements that differ only in their values have one fingerprint, in which none of the values is."""

from __future__ import annotations

import json
import subprocess

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT

pytestmark = pytest.mark.superset

SAME = [
    [
        "SELECT a FROM t WHERE b = 'secret' AND c IN (1, 2, 3) -- of ann",
        "select a\nfrom t where b = 'other' and c in (4)",
        "SELECT a FROM t WHERE b = NULL AND c IN (-1, 2)",
    ],
    ["INSERT INTO t VALUES (1, 'secret')", "INSERT INTO t VALUES (2, 'x'), (3, 'y')"],
    ["SELECT 1; SELECT 'secret'", "SELECT 2 ; SELECT 3;"],
    ["SELECT -5 FROM t LIMIT 10", "SELECT 6 FROM t LIMIT 1000"],
]
DIFFERENT = [
    "SELECT a FROM t",
    "SELECT b FROM t",
    "SELECT a FROM u",
    "SELECT a FROM t WHERE b = 1",
    "DELETE FROM t WHERE b = 1",
    "SELECT 'secret' FROM (",
    "SELECT 'x' FROM (",
    "CALL remember('secret')",
    f"SELECT '{'secret' * 5000}'",
]


def fingerprints(statements: list[str], dialect: str = "postgres") -> list[str]:
    command = [str(binaries.superset_python()), "-m", "tests.runtime.queries.fingerprints_process"]
    given = json.dumps([[sql, dialect] for sql in statements])
    done = subprocess.run(command, input=given, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_values_and_spelling_are_not_in_it() -> None:
    found = fingerprints([sql for group in SAME for sql in group])
    assert found[0] == "SELECT a FROM t WHERE b = ? AND c IN (?)"
    for group in SAME:
        assert len({found.pop(0) for _ in group}) == 1, group


def test_different_statements_stay_apart_and_no_value_is_told() -> None:
    found = fingerprints(DIFFERENT)
    assert len(set(found)) == len(DIFFERENT)
    assert not any("secret" in each for each in found)
