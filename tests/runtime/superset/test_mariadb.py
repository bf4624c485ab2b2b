"""A statement of MariaDB is cancelled by what only it has, and ended by its limit: on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.conftest import Prepared, run_script
from tests.runtime.mariadb import PASSWORD, USER, has_driver, has_mariadb, mariadb

pytestmark = [
    pytest.mark.superset,
    pytest.mark.further,
    has_mariadb,
    pytest.mark.skipif(not has_driver(), reason="PyMySQL is not in Superset's environment (make .venv-superset/.mysql)"),
]
#: MariaDB's error for a statement that took longer than its limit, and the client's for a session that was ended.
TIMED_OUT, LOST = 1969, 2013


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mariadb(tmp_path_factory.mktemp("mariadb")) as port:
        yield port


def test_a_number_that_is_anothers_by_now_ends_nobody_and_the_right_session_is_seen_gone(
    prepared: Prepared, port: int
) -> None:
    uri = f"mysql+pymysql://{USER}:{PASSWORD}@127.0.0.1:{port}/analytics"
    assert run_script("superset.mariadb_process", prepared.environment("web"), uri) == {
        "told": [LOST],
        "its number": ["unknown", True],
        "another number": ["gone", True],
        "another tag": ["unknown", True],
        "all its own": ["gone", False],
        "once more": ["gone", False],
        "as Superset stops it": True,
        "as Superset has it from before": False,
        "limit": [TIMED_OUT],
    }
