"""Queries whose worker dies, whose message comes twice, whose limits are reached: on a real worker, PostgreSQL and Valkey."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from runtime.queries import abandoned_charts, query_tasks
from tests.runtime.conftest import Prepared, until
from tests.runtime.queries.conftest import Web, Worker

pytestmark = pytest.mark.superset


def executing(prepared: Prepared, marker: str) -> int:
    """How many sessions execute a statement with `marker`."""
    return int(
        prepared.services.sql(
            f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{marker}%' AND state = 'active' "
            "AND pid <> pg_backend_pid()",
            database="postgres",
        )
    )


@contextmanager
def standing_still(prepared: Prepared, marker: str) -> Generator[None]:
    """In the block the server's process that executes a statement with `marker` stands still, and does not end when told to."""
    pid = int(
        prepared.services.sql(
            f"SELECT pid FROM pg_stat_activity WHERE query LIKE '%{marker}%' AND state = 'active' AND pid <> pg_backend_pid()",
            database="postgres",
        )
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def attempts(prepared: Prepared, kind: str, subject: object) -> list[str]:
    """Number and outcome of each attempt."""
    rows = prepared.services.sql(
        f"SELECT attempt || ' ' || COALESCE(outcome, 'open') FROM superset_async_executions "
        f"WHERE kind = '{kind}' AND subject = '{subject}' ORDER BY attempt"
    )
    return rows.splitlines()


def committed(prepared: Prepared, marker: str) -> int:
    return int(prepared.services.sql(f"SELECT count(*) FROM runs WHERE marker = '{marker}'", database="analytics"))


def begins(prepared: Prepared, marker: str, times: int = 1) -> None:
    until(lambda: executing(prepared, marker) == times, 60, f"{marker} is executed")


def write(marker: str, seconds: int = 4) -> str:
    return f"INSERT INTO runs SELECT '{marker}' FROM slow({seconds})"


def test_a_killed_child(prepared: Prepared, web: Web, worker: Worker) -> None:
    """What it read is read again, what it may have written is not, a chart is computed again; none hangs in the database."""
    read = web.submit("SELECT slow(4), 'killed read'", "library")
    begins(prepared, "killed read")
    os.kill(worker.busy_child("killed read"), signal.SIGKILL)
    written = web.submit(write("killed write"), "ledger")
    begins(prepared, "killed write")
    os.kill(worker.busy_child("killed write"), signal.SIGKILL)
    refused = web.ended(written)
    assert (refused["status"], refused["error_message"]) == ("failed", query_tasks.LOST_WRITE)
    assert web.ended(read)["status"] == "success"
    assert attempts(prepared, "sql", read) == ["1 lost", "2 success"]
    until(lambda: worker.said(f"sql {written}: its child is gone") == 1, 20, "the parent does not wait for the message")
    job = web("chart", sql="SELECT slow(4) AS one /* killed chart */")
    begins(prepared, "killed chart")
    os.kill(worker.busy_child("killed chart"), signal.SIGKILL)
    assert [event["status"] for event in web.events(job)] == ["done"]
    assert attempts(prepared, "chart", job["job_id"]) == ["1 lost", "2 success"]
    until(lambda: executing(prepared, "killed") == 0, 15, "the database has ended what nobody waits for")
    assert committed(prepared, "killed write") == 0
    assert attempts(prepared, "sql", written) == ["1 lost"]


def test_a_read_that_kills_its_worker_is_given_up(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web.submit("SELECT slow(30), 'poison read'", "library")
    most = prepared.topology.resilience.max_retries + 1
    for attempt in range(1, most + 1):
        until(lambda n=attempt: attempts(prepared, "sql", query)[-1:] == [f"{n} open"], 60, f"attempt {attempt} runs")
        until(lambda: executing(prepared, "poison read") >= 1, 60, "in the database")
        until(lambda: worker.finds("poison read"), 30, "by a child")
        os.kill(worker.busy_child("poison read"), signal.SIGKILL)
    ended = web.ended(query)
    assert (ended["status"], ended["error_message"]) == ("failed", query_tasks.lost_too_often(most))
    assert attempts(prepared, "sql", query) == [f"{n} lost" for n in range(1, most + 1)]


def test_a_killed_worker(prepared: Prepared, web: Web, worker: Worker) -> None:
    """A node's end: once its messages are restored, another worker reads again, and refuses to write again."""
    read = web.submit("SELECT slow(4), 'node read'", "library")
    written = web.submit(write("node write"), "ledger")
    begins(prepared, "node", 2)
    worker.kill()
    assert web("restore") == 2
    worker.start()
    refused = web.ended(written)
    assert (refused["status"], refused["error_message"]) == ("failed", query_tasks.LOST_WRITE)
    assert web.ended(read)["status"] == "success"
    assert attempts(prepared, "sql", read) == ["1 lost", "2 success"]
    assert attempts(prepared, "sql", written) == ["1 lost"]
    assert committed(prepared, "node write") == 0


def test_a_message_that_comes_twice_is_executed_once(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web.submit(write("twice"), "ledger", task_id="twice")
    begins(prepared, "twice")
    web("send", query_id=query, sql=write("twice"), task_id="twice")
    assert web.ended(query)["status"] == "success"
    web("send", query_id=query, sql=write("twice"), task_id="twice-again")
    until(lambda: "Task sql_lab.get_sql_results[twice-again]" in worker.log.read_text(), 30, "the second is received")
    until(lambda: worker.said(f"sql {query} is not executed: Ignore()") >= 1, 60, "and ignored")
    assert committed(prepared, "twice") == 1
    assert attempts(prepared, "sql", query) == ["1 success"]
    # The one that came while the first ran was rescheduled, and finds it ended too.
    until(lambda: worker.said(f"sql {query} is not executed: Ignore()") >= 2, 60, "both are ignored")
    assert committed(prepared, "twice") == 1


def test_a_stopped_query_that_waits_never_runs(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web("row", sql=write("stopped"), database="ledger", status="stopped")
    web("send", query_id=query, sql=write("stopped"))
    until(lambda: worker.said(f"sql {query} is not executed: Ignore()") == 1, 60, "it is ignored")
    assert (committed(prepared, "stopped"), attempts(prepared, "sql", query)) == (0, [])
    assert web("query", query_id=query)["status"] == "stopped"


def test_an_abandoned_chart_is_cancelled_in_its_database_and_one_that_waits_never_runs(
    prepared: Prepared, web: Web, worker: Worker, coordination: Any
) -> None:
    others = web.submit("SELECT slow(50), 'beside abandoned'", "library")
    running = web("chart", sql="SELECT slow(50) AS one, 'abandoned chart' AS two")
    begins(prepared, "beside abandoned")
    begins(prepared, "abandoned chart")
    waiting = web("chart", sql="SELECT slow(50) AS one, 'never begun' AS two")
    for job in (waiting, running):
        abandoned_charts.stop(job["job_id"])
    begins(prepared, "abandoned chart", 0)
    until(lambda: attempts(prepared, "chart", running["job_id"]) == ["1 stopped"], 60, "it has ended")
    until(lambda: worker.said(f"chart {waiting['job_id']} is not executed") == 1, 60, "the other one is not begun")
    assert attempts(prepared, "chart", waiting["job_id"]) == []
    assert executing(prepared, "beside abandoned") == 1
    assert web("stop", query_id=others) == 200


def test_limits_tell_the_user(prepared: Prepared, web: Web, worker: Worker) -> None:
    """The soft limit of a chart, and the hard limit of a chart and of a query, which ends the statement too."""
    soft = web("chart", sql="SELECT slow(3) AS one", headers={"timelimit": [20, 2]})
    hard = web("chart", sql="SELECT slow(33) AS one /* hard chart */", headers={"timelimit": [4, 2]})
    query = web.submit("SELECT slow(33), 'hard query'", "library", headers={"timelimit": [5, 3]})
    for job, message in ((soft, query_tasks.soft_limit(2)), (hard, query_tasks.hard_limit(4, "unknown", writes=False))):
        events = web.events(job)
        assert [event["status"] for event in events] == ["error"]
        assert [error["message"] for error in events[0]["errors"]] == [message]
        until(lambda job=job: attempts(prepared, "chart", job["job_id"]) == ["1 timed_out"], 20, "it is recorded")
    ended = web.ended(query)
    assert (ended["status"], ended["error_message"]) == ("failed", query_tasks.hard_limit(5, "gone", writes=False))
    until(lambda: attempts(prepared, "sql", query) == ["1 timed_out"], 20, "it is recorded")
    until(lambda: executing(prepared, "hard") == 0, 15, "the database has ended both statements")


@pytest.mark.further
def test_a_hard_limit_says_what_was_seen_of_the_statement(prepared: Prepared, web: Web, worker: Worker) -> None:
    """A statement whose server's process stands still, and one whose database cannot be reached any more."""
    still = web.submit(write("stands still", 33), "ledger", headers={"timelimit": [6, 5]})
    begins(prepared, "stands still")
    with standing_still(prepared, "stands still"):
        ended = web.ended(still)
    assert (ended["status"], ended["error_message"]) == ("failed", query_tasks.hard_limit(6, "running", writes=True))
    apart = web.submit("SELECT slow(33), 'no way there'", "library", headers={"timelimit": [6, 5]})
    begins(prepared, "no way there")
    prepared.services.sql("ALTER ROLE analyst NOLOGIN", database="postgres")
    try:
        ended = web.ended(apart)
    finally:
        prepared.services.sql("ALTER ROLE analyst LOGIN", database="postgres")
    assert (ended["status"], ended["error_message"]) == ("failed", query_tasks.hard_limit(6, "unknown", writes=False))
    for query in (still, apart):
        until(lambda query=query: attempts(prepared, "sql", query) == ["1 timed_out"], 20, "it is recorded")


def test_a_read_waits_for_its_database_outside_of_the_worker(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web.submit("SELECT 1, 'harbour'", "harbour")
    job = web("chart", sql="SELECT 1 AS one", database="harbour")
    until(lambda: attempts(prepared, "sql", query)[:1] == ["1 retried"], 60, "the first attempt met a closed port")
    until(lambda: attempts(prepared, "chart", job["job_id"])[:1] == ["1 retried"], 60, "and the chart's")
    assert web("query", query_id=query)["status"] in ("pending", "running")
    with forwarding(web.harbour_port, prepared.services.postgres_port):
        assert web.ended(query)["status"] == "success"
        assert [event["status"] for event in web.events(job)] == ["done"]
    assert attempts(prepared, "sql", query)[-1].endswith(" success")
    assert committed(prepared, "harbour") == 0


def test_a_read_whose_connection_is_lost_is_read_again(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web.submit("SELECT slow(3), 'lost connection'", "library")
    begins(prepared, "lost connection")
    prepared.services.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%lost connection%' "
        "AND pid <> pg_backend_pid()",
        database="postgres",
    )
    assert web.ended(query)["status"] == "success"
    assert attempts(prepared, "sql", query) == ["1 retried", "2 success"]


def lose_metadata(prepared: Prepared, query: int) -> None:
    """End the session with the metadata database in which a task writes how its statement has ended."""
    held = (
        "FROM pg_stat_activity WHERE datname = 'superset' AND application_name = 'superset-worker' "
        "AND wait_event_type = 'Lock'"
    )
    with prepared.services.holding(f"SELECT id FROM query WHERE id = {query} FOR UPDATE"):
        until(lambda: prepared.services.sql(f"SELECT count(*) {held}") != "0", 60, "a task writes its end")
        prepared.services.sql(f"SELECT pg_terminate_backend(pid) {held}")


def test_a_read_that_loses_the_metadata_database_is_read_again(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web.submit("SELECT slow(6), 'metadata read'", "library")
    begins(prepared, "metadata read")
    lose_metadata(prepared, query)
    assert web.ended(query)["status"] == "success"
    assert attempts(prepared, "sql", query) == ["1 retried", "2 success"]


def test_a_write_that_loses_the_metadata_database_says_what_is_known(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web.submit("INSERT INTO runs SELECT 'metadata write' FROM slow(6)", "ledger")
    begins(prepared, "metadata write")
    lose_metadata(prepared, query)
    ended = web.ended(query)
    assert (ended["status"], ended["error_message"]) == ("failed", query_tasks.UNWRITTEN_WRITE)
    assert attempts(prepared, "sql", query) == ["1 lost"]


def test_sessions_of_a_database_without_writes_are_read_only(prepared: Prepared, web: Web, worker: Worker) -> None:
    """Superset itself lets this statement pass."""
    prepared.services.sql(
        "CREATE TABLE IF NOT EXISTS library_runs (n int); GRANT ALL ON library_runs TO analyst", "analytics"
    )
    prepared.services.sql(
        "CREATE OR REPLACE FUNCTION scribble() RETURNS int LANGUAGE sql AS 'INSERT INTO library_runs VALUES (1) RETURNING n'",
        "analytics",
    )
    ended = web.ended(web.submit("SELECT scribble()", "library"))
    assert ended["status"] == "failed"
    assert "read-only transaction" in ended["error_message"]
    assert web.ended(web.submit("SELECT scribble()", "ledger"))["status"] == "success"


def test_children_share_no_connection_with_their_parent(prepared: Prepared, worker: Worker) -> None:
    """Sockets of the metadata database, by their inodes, also of a child that was forked later."""
    parent = psutil.Process(worker.process.pid)

    def sockets(process: psutil.Process) -> set[tuple[Any, Any]]:
        port = prepared.services.postgres_port
        return {(it.laddr, it.raddr) for it in process.net_connections() if it.raddr and it.raddr.port == port}

    children = parent.children()
    assert len(children) == 2
    everything = [sockets(process) for process in (parent, *children)]
    for index, mine in enumerate(everything):
        for theirs in everything[index + 1 :]:
            assert not mine & theirs


def test_a_worker_says_what_it_has_reserved(prepared: Prepared, web: Web, worker: Worker, coordination: Any) -> None:
    from runtime.broker import reserved_tasks

    query = web.submit("SELECT slow(8), 'reserved'", "library", task_id="reserved-task")
    until(lambda: "reserved-task" in reserved_tasks.reserved(), 15, "it is published")
    assert web.ended(query)["status"] == "success"
    until(lambda: "reserved-task" not in reserved_tasks.reserved(), 15, "it is withdrawn")


@contextmanager
def forwarding(port: int, to: int) -> Generator[None]:
    """Connections to `port` reach `to`, in the block."""
    server = socket.create_server(("127.0.0.1", port))
    stopped = threading.Event()

    def pump(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        while not stopped.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", to))
            for pair in ((client, upstream), (upstream, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        stopped.set()
        server.close()
        time.sleep(0)
