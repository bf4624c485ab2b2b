"""Statements of the runbooks are what the real metadata database takes."""

from __future__ import annotations

import pytest

from tests.monitoring.test_runbook_commands import PAGES, statements
from tests.runtime.conftest import Prepared

pytestmark = pytest.mark.superset


def test_the_metadata_database_answers_every_statement_of_the_runbooks(prepared: Prepared) -> None:
    # Celery makes its table when the first task has ended.
    found = [statement for page in PAGES for statement in statements(page) if "celery_taskmeta" not in statement]
    assert len(found) >= 4
    for statement in found:
        # AssertionError with what the server says.
        prepared.services.sql(statement)
