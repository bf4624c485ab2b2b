"""A query's states and times as plain data."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import QueryFailedError, QueryStoppedError, QueryTimedOutError, ended
from client.states import Backoff, QueryHandle, State, Timeline, clock_offset_ms, read_state, read_status, timeline
from tests.client.conftest import record

seconds = st.floats(0.001, 100)


@given(first=seconds, factor=st.floats(1, 5), cap=seconds)
def test_pauses_grow_to_the_cap_and_cost_a_waiter_little(first: float, factor: float, cap: float) -> None:
    if first > cap:
        with pytest.raises(ValueError, match="first <= cap"):
            Backoff(first, factor, cap)
        return
    pauses = list(itertools.islice(Backoff(first, factor, cap).delays(), 60))
    assert pauses[0] == first
    assert all(pause <= cap for pause in pauses)
    waited = 0.0
    for now, following in itertools.pairwise(pauses):
        waited += now
        assert now <= following
        # What a waiter loses by the next pause is at most this share of what it has waited, beyond the first pause.
        assert following <= first + (factor - 1) * waited + 1e-9


@pytest.mark.parametrize("wrong", [(0, 2, 1), (-1, 2, 1), (1, 0.5, 2), (2, 2, 1)])
def test_a_schedule_that_does_not_grow_is_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="factor >= 1"):
        Backoff(*wrong)


# What PostgreSQL 18, MySQL 8, MariaDB 11 and Superset itself say.
LIMITS = [
    "postgresql error: canceling statement due to statement timeout",
    "postgresql error: The database ended this statement after 5s, its limit (statement timeout). Read less at once",
    "mysql error: Query execution was interrupted, maximum statement execution time exceeded",
    "(1969, 'Query execution was interrupted (max_statement_time exceeded)')",
    "The query was killed after 540 seconds. It might be too complex, or the database might be under heavy load.",
    "The query exceeded the 30 seconds timeout.",
]


@pytest.mark.parametrize(
    ("word", "error", "state"),
    [
        ("pending", None, State.PENDING),
        ("scheduled", None, State.PENDING),
        ("running", None, State.RUNNING),
        ("fetching", None, State.RUNNING),
        ("success", None, State.SUCCESS),
        ("SUCCESS", None, State.SUCCESS),
        ("stopped", None, State.STOPPED),
        ("timed_out", None, State.TIMED_OUT),
        ("failed", 'postgresql error: relation "statement" does not exist', State.FAILED),
        ("failed", None, State.FAILED),
        # Only a failure is read so.
        ("running", LIMITS[0], State.RUNNING),
        *(("failed", message, State.TIMED_OUT) for message in LIMITS),
    ],
)
def test_states(word: str, error: str | None, state: State) -> None:
    assert read_state(word, error) is state


def test_an_unknown_state_is_an_error_not_a_query_that_never_ends() -> None:
    with pytest.raises(ValueError, match=r"'quantum'; known: failed, fetching, pending"):
        read_state("quantum", None)
    assert {state for state in State if not state.final} == {State.PENDING, State.RUNNING}


def test_a_record_of_superset_becomes_a_status() -> None:
    status = read_status(7, record())
    assert (status.id, status.client_id, status.rows) == (7, "hsooznbmgrb", 1)
    assert status.execution_ms == pytest.approx(73.8848, abs=0.001)
    pending = read_status(7, record("pending"))
    assert (pending.started_ms, pending.ended_ms, pending.rows, pending.execution_ms) == (None, None, None, None)
    # A query that Superset refused before a worker began to execute it has an end, but no execution.
    assert read_status(7, record("failed", start_running_time=None)).execution_ms is None


@pytest.mark.parametrize(
    ("status", "changes", "kind"),
    [
        ("success", {}, None),
        ("failed", {"error_message": "postgresql error: boom"}, QueryFailedError),
        ("failed", {"error_message": LIMITS[0]}, QueryTimedOutError),
        ("stopped", {}, QueryStoppedError),
    ],
)
def test_how_a_query_ended_is_an_exception_with_its_reason(status: str, changes: dict[str, str], kind: type | None) -> None:
    failure = ended(read_status(7, record(status, **changes)))
    assert type(failure) is (kind or type(None))
    if failure is not None:
        assert "query 7 " in str(failure)
        assert "after 0.1 s" in str(failure)
        assert changes.get("error_message", "") in str(failure)


moment = st.floats(1.7e12, 1.9e12)
duration = st.floats(0, 1e6)


@given(sent=moment, skew=st.floats(-1e9, 1e9), gaps=st.tuples(*[duration] * 5))
def test_a_timeline_is_in_order_whatever_the_servers_clock(sent: float, skew: float, gaps: tuple[float, ...]) -> None:
    """A server of any clock yields moments in order, and its own durations unchanged."""
    _, queued, answered, started, ended_, fetched = itertools.accumulate(gaps, initial=sent)
    server = {
        name: str(at + skew) for name, at in (("start_time", queued), ("start_running_time", started), ("end_time", ended_))
    }
    handle = QueryHandle(7, "x", sent, answered)
    line = timeline(handle, read_status(7, record(**server)), fetched)
    assert line.queued is not None
    assert line.started is not None
    assert line.finished is not None
    slack = 1.0
    assert -slack <= line.queued <= answered - sent + slack
    assert line.started - line.queued == pytest.approx(started - queued, abs=slack)
    assert line.finished - line.started == pytest.approx(ended_ - started, abs=slack)
    assert line.fetched == pytest.approx(fetched - sent, abs=slack)
    if skew == 0:
        assert line.queued == pytest.approx(queued - sent, abs=slack)


@given(server=moment, earliest=moment, length=duration)
def test_the_clock_is_corrected_by_the_least(server: float, earliest: float, length: float) -> None:
    offset = clock_offset_ms(server, earliest, earliest + length)
    assert earliest - 1 <= server + offset <= earliest + length + 1
    assert offset == 0 or abs(offset) == pytest.approx(min(abs(server - earliest), abs(server - earliest - length)), abs=1)


def test_a_timeline_says_what_is_not_known() -> None:
    line = Timeline(queued=12.34, started=None, finished=20.04, fetched=31.0)
    assert str(line) == "submitted 0 · queued 12 · started ? · finished 20 · fetched 31 ms"
    assert line.as_dict() == {"submitted": 0.0, "queued": 12.3, "started": None, "finished": 20.0, "fetched": 31.0}
