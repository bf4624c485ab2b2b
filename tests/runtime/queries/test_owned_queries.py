"""Who stops and exports a query is whose it is; and an export executes nothing: on a real worker, PostgreSQL and Valkey."""

from __future__ import annotations

import pytest

from tests.runtime.conftest import Prepared
from tests.runtime.queries.conftest import Web, Worker
from tests.runtime.queries.test_execution import begins, committed, executing

pytestmark = pytest.mark.superset


def test_a_query_is_stopped_and_exported_by_its_user_or_who_may_see_all(
    prepared: Prepared, web: Web, worker: Worker
) -> None:
    web("member", name="eve")
    web("member", name="auditor", permissions=[["all_query_access", "all_query_access"]])
    running = web.submit("SELECT slow(30), 'owned read'", "library")
    begins(prepared, "owned read")
    assert web("stop_as", name="eve", query_id=running) == 404
    assert web("query", query_id=running)["status"] == "running"
    assert executing(prepared, "owned read") == 1
    assert web("stop_as", name="auditor", query_id=running) == 200
    read = web.submit("SELECT 7 AS seven", "library")
    assert web.ended(read)["status"] == "success"
    for streaming in (False, True):
        refused = web("export", name="eve", query_id=read, streaming=streaming)
        assert (refused["status"], "seven" in refused["text"]) == (403, False)
        told = web("export", name="bob", query_id=read, streaming=streaming)
        assert (told["status"], told["text"].lstrip("\ufeff").split()) == (200, ["seven", "7"])
        # He may, and is no tenant's: results are kept for each tenant apart.
        assert web("export", name="auditor", query_id=read, streaming=streaming)["status"] == 410


def test_an_export_of_a_result_that_is_gone_executes_nothing(prepared: Prepared, web: Web, worker: Worker) -> None:
    for sql, database in (
        ("INSERT INTO runs VALUES ('exported write') RETURNING marker", "ledger"),
        ("SELECT 1 AS one", "library"),
    ):
        query = web.submit(sql, database)
        assert web.ended(query)["status"] == "success"
        before = committed(prepared, "exported write")
        web("lose", query_id=query)
        for streaming in (False, True):
            told = web("export", name="bob", query_id=query, streaming=streaming)
            assert (told["status"], "executes nothing again" in told["text"]) == (410, True)
        assert committed(prepared, "exported write") == before == 1
