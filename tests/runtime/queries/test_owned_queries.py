"""Who stops and exports a query is whose it is; and no web process executes it again: on a real worker, PostgreSQL and Valkey."""

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


def test_a_result_is_read_by_who_may_whatever_his_tenant(prepared: Prepared, web: Web, worker: Worker) -> None:
    """Bob's, of a tenant, by one without a tenant who may see all queries; and not by who only knows its key."""
    web("member", name="mallory")
    web("member", name="controller", permissions=[["all_query_access", "all_query_access"]])
    query = web.submit("INSERT INTO runs VALUES ('read by another') RETURNING 13 AS thirteen", "ledger")
    assert web.ended(query)["status"] == "success"
    for name in ("bob", "controller"):
        assert web("results", name=name, query_id=query) == {"status": 200, "data": [{"thirteen": 13}]}
        told = web("export", name=name, query_id=query)
        assert (told["status"], told["text"].lstrip("\ufeff").split()) == (200, ["thirteen", "13"]), told
    assert web("results", name="mallory", query_id=query)["status"] == 403
    assert committed(prepared, "read by another") == 1


def test_a_read_whose_result_is_gone_is_executed_by_a_worker_as_a_new_query(
    prepared: Prepared, web: Web, worker: Worker
) -> None:
    query = web.submit("SELECT 11 AS eleven", "library")
    assert web.ended(query)["status"] == "success"
    for streaming in (False, True):
        web("lose", query_id=query)
        done = int(prepared.services.sql("SELECT count(*) FROM superset_async_executions WHERE outcome = 'success'"))
        told = web("export", name="bob", query_id=query, streaming=streaming)
        assert (told["status"], told["text"].lstrip("\ufeff").split()) == (200, ["eleven", "11"]), told
        new, kind, queue = prepared.services.sql(
            "SELECT subject, kind, queue FROM superset_async_executions ORDER BY started_at DESC LIMIT 1"
        ).split("|")
        assert (int(new) > query, kind, queue) == (True, "sql", "tenant-b")
        assert done + 1 == int(
            prepared.services.sql("SELECT count(*) FROM superset_async_executions WHERE outcome = 'success'")
        )


def test_an_export_executes_nothing_again_that_may_write(prepared: Prepared, web: Web, worker: Worker) -> None:
    """What a parser knows to write, and what it cannot know of a function, where the session may write."""
    prepared.services.sql(
        "CREATE OR REPLACE FUNCTION notes(what text) RETURNS int LANGUAGE sql AS "
        "$$ INSERT INTO runs VALUES (what) RETURNING 1 $$",
        "analytics",
    )
    for marker, sql in (
        ("exported write", "INSERT INTO runs VALUES ('exported write') RETURNING marker"),
        ("exported with", "WITH w AS (INSERT INTO runs VALUES ('exported with') RETURNING marker) SELECT * FROM w"),
        ("exported call", "SELECT notes('exported call') AS one"),
    ):
        query = web.submit(sql, "ledger")
        assert web.ended(query)["status"] == "success"
        before = committed(prepared, marker)
        web("lose", query_id=query)
        for streaming in (False, True):
            told = web("export", name="bob", query_id=query, streaming=streaming)
            assert (told["status"], "does not execute again" in told["text"]) == (410, True), told
        assert committed(prepared, marker) == before
