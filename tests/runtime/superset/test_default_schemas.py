"""One who asks for a database's default schema asks for all who do; and nobody has another's answer."""

from __future__ import annotations

import os

import pytest

from tests.runtime.conftest import run_script


@pytest.mark.superset
def test_a_database_is_asked_once_for_all_and_each_has_its_own() -> None:
    assert run_script("superset.default_schemas_process", os.environ) == {
        "at once": [1, ["schema of one"]],
        "another catalog": 1,
        "another database": 1,
        "a changed one": 1,
        "not stored": 2,
        "impersonated ann": 1,
        "impersonated bob": 1,
        # Hers is kept.
        "impersonated ann again": 0,
    }
