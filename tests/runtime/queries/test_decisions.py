"""What is decided without any service: deliveries, back-off, which errors pass by themselves, what a message asks for."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.queries import query_tasks, transient_errors
from runtime.queries.deliveries import Ignore, Refuse, Run, backoff, decide
from runtime.queries.executions import Attempt, Outcome
from runtime.queries.interfaces import Seen

SEEN: tuple[Seen, ...] = get_args(Seen)
OUTCOMES: list[Outcome | None] = [None, "success", "failed", "stopped", "timed_out", "lost", "refused", "retried"]


@pytest.mark.parametrize(
    ("last", "writes", "decision"),
    [
        (None, False, Run(1)),
        (None, True, Run(1)),
        (Attempt(1, "retried", writes=False), False, Run(2)),
        (Attempt(1, None, writes=False), False, Run(2)),
        (Attempt(3, None, writes=False), False, Run(4)),
        (Attempt(4, None, writes=False), False, Refuse(query_tasks.lost_too_often(4))),
        (Attempt(1, None, writes=True), True, Refuse(query_tasks.LOST_WRITE)),
        # Whoever changed the database's registration in between: what one attempt took for a write stays one.
        (Attempt(1, None, writes=True), False, Refuse(query_tasks.LOST_WRITE)),
        (Attempt(1, None, writes=False), True, Refuse(query_tasks.LOST_WRITE)),
    ],
)
def test_what_is_done_with_a_delivery(last: Attempt | None, writes: bool, decision: Any) -> None:
    assert decide(False, last, writes, max_retries=3) == decision
    assert decide(True, last, writes, max_retries=3) == Ignore()


@given(
    outcome=st.sampled_from(OUTCOMES),
    number=st.integers(1, 9),
    writes=st.booleans(),
    before=st.booleans(),
    most=st.integers(0, 9),
)
def test_a_write_that_began_never_begins_again(
    outcome: Outcome | None, number: int, writes: bool, before: bool, most: int
) -> None:
    decision = decide(False, Attempt(number, outcome, before), writes, most)
    if (writes or before) and outcome != "retried":
        assert isinstance(decision, Refuse)
    if isinstance(decision, Run):
        assert decision.attempt == number + 1
        assert outcome == "retried" or number <= most


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("writes", [False, True])
def test_words_say_of_a_statement_what_was_seen_of_it(seen: Seen, writes: bool) -> None:
    limit = query_tasks.hard_limit(90, seen, writes=writes)
    assert ("its statement in the database with it" in limit) == (seen == "gone")
    assert ("may stand" in limit) == writes
    assert ("Read less" in limit) != writes
    for said in (limit, query_tasks.with_seen(query_tasks.LOST_WRITE, seen)):
        assert ("it may go on" in said) == (seen != "gone")
        assert ("was told to end" in said) == (seen == "running")


@given(attempt=st.integers(1, 60), most=st.integers(1, 3600), chance=st.floats(0, 1))
def test_a_back_off_grows_to_its_bound_and_is_never_nothing(attempt: int, most: int, chance: float) -> None:
    seconds = backoff(attempt, most, chance)
    assert min(most, 2**attempt) / 2 <= seconds <= min(most, 2**attempt)


def driver_error(module: str, name: str, *arguments: object) -> Exception:
    return type(name, (Exception,), {"__module__": module})(*arguments)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (
            driver_error("psycopg2", "OperationalError", 'connection to server at "h", port 1 failed: Connection refused'),
            True,
        ),
        (driver_error("psycopg2", "OperationalError", "FATAL:  the database system is starting up"), True),
        (driver_error("psycopg2", "OperationalError", "FATAL:  sorry, too many clients already"), True),
        (driver_error("psycopg2.errors", "AdminShutdown", "terminating connection due to administrator command"), True),
        (driver_error("psycopg2", "OperationalError", 'FATAL:  password authentication failed for user "a"'), False),
        (driver_error("psycopg2", "OperationalError", 'FATAL:  database "x" does not exist'), False),
        (driver_error("psycopg2.errors", "QueryCanceled", "canceling statement due to statement timeout"), False),
        (driver_error("psycopg2.errors", "UndefinedTable", 'relation "connection refused" does not exist'), False),
        (driver_error("MySQLdb", "OperationalError", 2003, "Can't connect"), True),
        (driver_error("pymysql.err", "OperationalError", 1045, "Access denied"), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (ValueError("connection refused"), False),
    ],
)
def test_only_errors_that_pass_by_themselves_leave_a_read(error: Exception, passes: bool) -> None:
    assert transient_errors.is_transient(error) is passes
    transient_errors.met(error)
    with transient_errors.retrying(False):
        transient_errors.met(error)
    with transient_errors.retrying(True):
        if passes:
            with pytest.raises(transient_errors.TryAgain) as left:
                transient_errors.met(error)
            assert left.value.__cause__ is error
            assert not isinstance(left.value, Exception), "Superset would catch it"
        else:
            transient_errors.met(error)


CHART = "load_chart_data_into_cache"
JOB = {"job_id": "j", "channel_id": "c", "user_id": 3}


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "found"),
    [
        ("sql_lab.get_sql_results", (7, "SELECT 1"), {"username": "ann"}, ("sql", "7", "SELECT 1", None, "ann", None)),
        ("sql_lab.get_sql_results", (), {"query_id": 7, "rendered_query": "x"}, ("sql", "7", "x", None, "", None)),
        (CHART, (JOB, {"datasource": {"id": 5, "type": "table"}}), {}, ("chart", "j", "", 5, "", 3)),
        (CHART, (JOB, {"datasource": "5__table"}), {}, ("chart", "j", "", 5, "", 3)),
        (CHART, (JOB, {"datasource": {"id": 5, "type": "query"}}), {}, ("chart", "j", "", None, "", 3)),
        (
            CHART,
            ({**JOB, "user_id": None, "guest_token": {"user": {"username": "ann"}}}, {}),
            {},
            ("chart", "j", "", None, "guest:ann", None),
        ),
        ("sql_lab.get_sql_results", ("x", "SELECT 1"), {}, None),
        ("sql_lab.get_sql_results", (), {}, None),
        (CHART, ("x", {}), {}, None),
        (CHART, ({}, {}), {}, None),
        ("reports.execute", (1,), {}, None),
    ],
)
def test_what_a_message_asks_for(task: str, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any) -> None:
    asked = query_tasks.of(task, args, kwargs)
    if found is None:
        assert asked is None
    else:
        assert asked is not None
        assert (asked.kind, asked.subject, asked.sql, asked.source, asked.username, asked.user_id) == found
