"""What is told `stopped` stays so, and what it may have written is said: on a real worker, PostgreSQL and Valkey."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable

import pytest

from runtime.queries import query_tasks
from tests.runtime.conftest import Prepared, until
from tests.runtime.queries.conftest import Web, Worker
from tests.runtime.queries.test_execution import attempts, begins, committed, executing, standing_still, write

pytestmark = pytest.mark.superset

#: How many statements are stopped, each after a random part of so many seconds: parsing, connecting and executing take as long.
STOPS, SPREAD_SECONDS = 60, 0.4
#: So many that at least 200 are acknowledged.
MANY_STOPS = 320


def test_a_write_that_is_stopped_while_it_runs_ends_in_its_database_and_says_what_may_stand(
    prepared: Prepared, web: Web, worker: Worker
) -> None:
    query = web.submit(write("stopped write"), "ledger")
    begins(prepared, "stopped write")
    assert web("stop", query_id=query) == 200
    told = web("query", query_id=query)
    assert (told["status"], told["error_message"]) == ("stopped", query_tasks.STOPPED_WRITE)
    until(lambda: attempts(prepared, "sql", query) == ["1 stopped"], 30, "the worker has ended it")
    assert (executing(prepared, "stopped write"), committed(prepared, "stopped write")) == (0, 0)
    after = web("query", query_id=query)
    assert (after["status"], after["error_message"]) == ("stopped", query_tasks.STOPPED_WRITE)


@pytest.mark.further
def test_a_stopped_write_that_was_not_seen_gone_says_that_it_may_go_on(prepared: Prepared, web: Web, worker: Worker) -> None:
    query = web.submit(write("stopped and still", 33), "ledger")
    begins(prepared, "stopped and still")
    with standing_still(prepared, "stopped and still"):
        assert web("stop", query_id=query) == 200
        told = web("query", query_id=query)
    said = query_tasks.with_seen(query_tasks.STOPPED_WRITE, "running")
    assert (told["status"], told["error_message"]) == ("stopped", said)
    until(lambda: attempts(prepared, "sql", query) == ["1 stopped"], 30, "the worker has ended it")
    assert web("query", query_id=query)["error_message"] == said


def test_a_read_that_is_stopped_while_it_runs_is_not_tried_again(prepared: Prepared, web: Web, worker: Worker) -> None:
    """To its worker it has lost its connection, for which reads are tried again."""
    query = web.submit("SELECT slow(20), 'stopped read'", "library")
    begins(prepared, "stopped read")
    assert web("stop", query_id=query) == 200
    until(lambda: attempts(prepared, "sql", query) == ["1 stopped"], 30, "the worker has ended it")
    until(lambda: worker.said(f"sql {query} is not executed: Ignore()") == 1, 30, "its next delivery is ignored")
    told = web("query", query_id=query)
    assert (told["status"], told["error_message"]) == ("stopped", None)
    assert executing(prepared, "stopped read") == 0


def test_words_of_a_query_that_was_called_lost_stay_when_its_worker_comes_back(
    prepared: Prepared, web: Web, worker: Worker
) -> None:
    """As with a worker that stands still: the reaper ends its session, and it sees a lost connection when it goes on."""
    query = web.submit(write("called lost"), "ledger")
    begins(prepared, "called lost")
    said = "another process has said what is known"
    prepared.services.sql(f"UPDATE query SET status = 'failed', error_message = '{said}' WHERE id = {query}")
    ends = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%called lost%' AND pid <> pg_backend_pid()"
    )
    prepared.services.sql(ends, "postgres")
    until(lambda: attempts(prepared, "sql", query) not in ([], ["1 open"]), 60, "its worker has ended it")
    ended = web("query", query_id=query)
    assert (ended["status"], ended["error_message"]) == ("failed", said)
    assert committed(prepared, "called lost") == 0


def test_what_has_ended_cannot_be_stopped(web: Web, worker: Worker) -> None:
    query = web.submit("SELECT 1", "library")
    ended = web.ended(query)
    assert ended["status"] == "success"
    assert web("stop", query_id=query) == 422
    assert web("query", query_id=query)["status"] == "success"


@pytest.mark.parametrize("stops", [STOPS, pytest.param(MANY_STOPS, marks=pytest.mark.further)])
def test_stops_at_any_moment_are_kept_and_no_write_goes_unsaid(
    prepared: Prepared, web: Web, worker: Worker, stops: int, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(14)
    numbers = ",".join(map(str, range(500)))
    answers: dict[int, int] = {}
    lock = threading.Lock()

    def stop(query: int) -> None:
        status = web("stop", query_id=query)
        with lock:
            answers[query] = status

    timers: list[threading.Timer] = []
    markers: dict[int, str] = {}
    for number in range(stops):
        marker = f"race {stops} {number}"
        query = web.submit(f"INSERT INTO runs SELECT '{marker}' WHERE 5 IN ({numbers})", "ledger")
        markers[query] = marker
        timers.append(threading.Timer(chance.uniform(0, SPREAD_SECONDS), stop, [query]))
        timers[-1].start()
    for timer in timers:
        timer.join()
    assert set(answers.values()) <= {200, 422}
    before = _states(prepared, markers)
    # Bob's queue is served in order: what was sent last has ended when everything before it has begun.
    web.ended(web.submit("SELECT 'after the race'", "library"), 180)
    ids = ",".join(f"'{query}'" for query in markers)
    open_attempts = f"SELECT count(*) FROM superset_async_executions WHERE subject IN ({ids}) AND outcome IS NULL"
    until(lambda: prepared.services.sql(open_attempts) == "0", 120, "every attempt has ended")
    after = _states(prepared, markers)
    written = set(prepared.services.sql("SELECT marker FROM runs WHERE marker LIKE 'race %'", "analytics").splitlines())
    acknowledged = {query for query, status in answers.items() if status == 200}
    assert len(answers) == stops and acknowledged
    record_property("acknowledged", len(acknowledged))
    record_property("written", sum(markers[query] in written for query in acknowledged))
    for query, marker in markers.items():
        if query not in acknowledged:
            assert after[query] == ("success", "") and marker in written
        else:
            assert after[query] == before[query] and after[query][0] == "stopped"
            assert marker not in written or after[query][1].startswith(query_tasks.STOPPED_WRITE)


def _states(prepared: Prepared, queries: Iterable[int]) -> dict[int, tuple[str, str]]:
    """State and error of each query."""
    ids = ",".join(map(str, queries))
    rows = prepared.services.sql(
        f"SELECT id, status, COALESCE(error_message, '') FROM query WHERE id IN ({ids})"
    ).splitlines()
    return {int(number): (status, error) for number, status, error in (row.split("|") for row in rows)}
