"""The life of a query as plain data: states, times, and how often to ask. Pure.

Superset keeps a query's times as milliseconds since the epoch, by the server's clock; names that end in `_ms` hold those.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tenacity import RetryCallState
from tenacity.wait import wait_base


class State(StrEnum):
    """Where a query is. The last four are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self not in (State.PENDING, State.RUNNING)


#: Superset 6.1's own words; two of them are shades of the same thing to a client.
_STATES = {state.value: state for state in State} | {"scheduled": State.PENDING, "fetching": State.RUNNING}

# Superset ends a query that hit a limit as `failed`; only the error's words say why. In order: PostgreSQL and this project's
# own message for it, MySQL and MariaDB, Superset's for a Celery limit and for a synchronous one.
_LIMIT_HIT = re.compile(
    r"\bstatement timeout\b|maximum statement execution time exceeded|max_statement_time exceeded"
    r"|query was killed after .* seconds|exceeded the .* seconds timeout",
    re.IGNORECASE,
)


def limit_hit(message: str | None) -> bool:
    """Whether the error of a failed query says that a time limit ended it."""
    return bool(message and _LIMIT_HIT.search(message))


def read_state(word: str, error: str | None) -> State:
    """The state for Superset's word and error message; ValueError for a word that Superset 6.1 does not have."""
    state = _STATES.get(word.lower())
    if state is None:
        raise ValueError(f"unknown query state {word!r}; known: {', '.join(sorted(_STATES))}")
    return State.TIMED_OUT if state is State.FAILED and limit_hit(error) else state


@dataclass(frozen=True)
class QueryHandle:
    """A submitted query: the server's `id`, our `client_id`, and when the submission left and was answered (our clock)."""

    id: int
    client_id: str
    sent_ms: float
    answered_ms: float


@dataclass(frozen=True)
class QueryStatus:
    """What the server says about a query. `rows` is None until it has succeeded, times until they have come."""

    id: int
    client_id: str
    state: State
    sql: str
    rows: int | None
    queued_ms: float | None
    started_ms: float | None
    ended_ms: float | None
    error: str | None
    results_key: str | None

    @property
    def execution_ms(self) -> float | None:
        """From when a worker took it to its end; None while it runs, and for one that no worker took."""
        if self.ended_ms is None or self.started_ms is None:
            return None
        return self.ended_ms - self.started_ms


def read_status(query_id: int, record: Mapping[str, Any]) -> QueryStatus:
    """The status in a record of `GET /api/v1/query/<id>`; ValueError or KeyError for one that is not of Superset 6.1."""
    error = (record["error_message"] or "").strip() or None
    state = read_state(record["status"], error)
    return QueryStatus(
        id=query_id,
        client_id=record["client_id"],
        state=state,
        sql=record["sql"],
        rows=record["rows"] if state is State.SUCCESS else None,
        queued_ms=_number(record["start_time"]),
        started_ms=_number(record["start_running_time"]),
        ended_ms=_number(record["end_time"]),
        error=error,
        results_key=record["results_key"],
    )


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def utc(epoch_ms: float | None) -> datetime | None:
    """`epoch_ms` as a moment in UTC."""
    return None if epoch_ms is None else datetime.fromtimestamp(epoch_ms / 1000, UTC)


@dataclass(frozen=True)
class Timeline:
    """One execution in milliseconds since its submission left the client; None where the server does not tell.

    `queued`: the server has stored it; `started`: a worker has taken it; `finished`: the database has answered;
    `fetched`: its rows have arrived at the client.
    """

    queued: float | None
    started: float | None
    finished: float | None
    fetched: float
    submitted: float = 0.0

    def as_dict(self) -> dict[str, float | None]:
        """In order, rounded to a tenth of a millisecond."""
        moments = (
            ("submitted", self.submitted),
            ("queued", self.queued),
            ("started", self.started),
            ("finished", self.finished),
            ("fetched", self.fetched),
        )
        return {name: None if moment is None else round(moment, 1) for name, moment in moments}

    def __str__(self) -> str:
        return " · ".join(f"{name} {'?' if at is None else f'{at:.0f}'}" for name, at in self.as_dict().items()) + " ms"


def clock_offset_ms(server_ms: float, earliest_ms: float, latest_ms: float) -> float:
    """What to add to the server's clock so that `server_ms` falls where it must: between two moments of our clock.

    Zero where it already does, as on one machine; else the least correction, so that durations on either clock stay right.
    """
    return min(max(server_ms, earliest_ms), latest_ms) - server_ms


def timeline(handle: QueryHandle, status: QueryStatus, fetched_ms: float) -> Timeline:
    """The timeline of a query whose rows arrived at `fetched_ms` (our clock).

    The server writes a query down while it answers the submission, which tells how far its clock is off ours.
    """
    offset = 0.0 if status.queued_ms is None else clock_offset_ms(status.queued_ms, handle.sent_ms, handle.answered_ms)

    def since(moment_ms: float | None) -> float | None:
        return None if moment_ms is None else moment_ms + offset - handle.sent_ms

    return Timeline(
        queued=since(status.queued_ms),
        started=since(status.started_ms),
        finished=since(status.ended_ms),
        fetched=fetched_ms - handle.sent_ms,
    )


@dataclass(frozen=True)
class Backoff(wait_base):
    """Pauses in seconds: the `first`, each next one `factor` times as long, none longer than `cap`; one of tenacity's waits.

    A poll costs the web tier about 24 ms of CPU, so the pauses grow; what a waiter loses stays below `factor - 1` of the
    query's own time and below `cap`.
    """

    first: float = 0.05
    factor: float = 1.4
    cap: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.cap and self.factor >= 1):
            raise ValueError(f"{self}: wants 0 < first <= cap and factor >= 1")

    def __call__(self, retry_state: RetryCallState) -> float:
        """The pause after the attempt of `retry_state`, as tenacity asks for it."""
        return self.pause(retry_state.attempt_number)

    def pause(self, attempt: int) -> float:
        """The pause after the `attempt`-th question, counted from 1."""
        try:
            return min(self.first * self.factor ** (attempt - 1), self.cap)
        except OverflowError:
            return self.cap

    def delays(self) -> Iterator[float]:
        """The pauses, without end."""
        return map(self.pause, itertools.count(1))
