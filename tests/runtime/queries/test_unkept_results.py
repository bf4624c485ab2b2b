"""What is said of a statement that was executed and whose rows could not be stored: on a real worker, PostgreSQL and Valkeys."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from redis import Redis

from runtime.queries import query_tasks
from tests.runtime.conftest import OPERATOR_PASSWORD, Prepared, until
from tests.runtime.queries.conftest import Web, Worker
from tests.runtime.queries.test_execution import attempts, begins, committed, write

pytestmark = pytest.mark.superset


def cache_server(prepared: Prepared) -> Any:
    """The caches' server, to its operator."""
    return Redis(port=prepared.services.redis_port + 1, username="operator", password=OPERATOR_PASSWORD)


@contextmanager
def frozen(prepared: Prepared) -> Generator[None]:
    """The caches' server answers no command that writes, in the block. (Of all commands, it would not even take the unpause.)"""
    with cache_server(prepared) as server:
        server.client_pause(600_000, all=False)
        try:
            yield
        finally:
            server.client_unpause()


@contextmanager
def full(prepared: Prepared) -> Generator[None]:
    """The caches' server takes no value, in the block."""
    with cache_server(prepared) as server:
        policy = server.config_get("maxmemory-policy")["maxmemory-policy"]
        server.config_set("maxmemory-policy", "noeviction")
        server.config_set("maxmemory", 1)
        try:
            yield
        finally:
            server.config_set("maxmemory", 0)
            server.config_set("maxmemory-policy", policy)


@pytest.mark.parametrize("fault", [frozen, full])
def test_a_committed_write_says_so_and_a_read_is_tried_again(
    prepared: Prepared, web: Web, worker: Worker, fault: Callable[[Prepared], AbstractContextManager[None]]
) -> None:
    marker = f"unkept {fault.__name__}"
    written = web.submit(write(f"{marker} write"), "ledger")
    read = web.submit(f"SELECT slow(4), '{marker} read'", "library")
    begins(prepared, marker, 2)
    with fault(prepared):
        # Asked of the database: the web process may wait for the same server.
        row = f"SELECT status, error_message FROM query WHERE id = {written}"
        until(lambda: prepared.services.sql(row) == f"failed|{query_tasks.COMMITTED_NOT_KEPT}", 60, "the write has ended")
        until(lambda: attempts(prepared, "sql", read)[:1] == ["1 retried"], 60, "the read is put back")
    assert committed(prepared, f"{marker} write") == 1
    assert web.ended(read, 120)["status"] == "success"


def test_a_write_whose_rows_are_too_many_to_keep_was_committed(prepared: Prepared, web: Web, worker: Worker) -> None:
    """Rows that no codec makes smaller, as one value: some kilobytes over what the stack keeps."""
    size = prepared.topology.caching.max_result_bytes
    prepared.services.sql(
        "CREATE OR REPLACE FUNCTION noise(count int) RETURNS text LANGUAGE sql AS "
        "$$SELECT string_agg(md5(i::text || random()::text), '') FROM generate_series(1, count) i$$",
        "analytics",
    )
    # 32 hexadecimal digits have 16 bytes of chance.
    count = size // 16 + 4096
    ended = web.ended(web.submit(f"INSERT INTO runs SELECT 'too large' RETURNING noise({count})", "ledger"), 120)
    assert (ended["status"], ended["error_message"]) == ("failed", query_tasks.COMMITTED_NOT_KEPT)
    assert committed(prepared, "too large") == 1
    read = web.ended(web.submit(f"SELECT noise({count})", "ledger"), 120)
    assert (read["status"], read["error_message"]) == ("failed", query_tasks.EXECUTED_NOT_KEPT)
