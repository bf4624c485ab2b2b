"""What can go wrong between a client and Superset: one exception a cause, each with a command's exit code for it."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from client.states import QueryStatus, State


class ExitCode(IntEnum):
    """How `superset-async query` ends."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    UNREACHABLE = 3
    ACCESS = 4
    FAILED = 5
    TIMED_OUT = 6
    STOPPED = 7
    EXPIRED = 8
    NO_WORKER = 9
    REFUSED = 10
    NOT_STOPPED = 11
    INTERRUPTED = 130
    TERMINATED = 143


class ClientError(Exception):
    """Base of all: the message says what happened and the way out, and never holds a secret."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED


class UsageError(ClientError):
    """The caller asked for something that cannot be."""

    exit_code = ExitCode.USAGE


class UnknownNameError(UsageError):
    """No such database, dataset or query, or none that this user may see; the message has the nearest names."""


class UnreachableError(ClientError):
    """No answer from the server, or from a store behind it. `sent` is whether the request may have arrived there."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class LoginError(ClientError):
    """Wrong username or password, or a token that is invalid or has expired."""

    exit_code = ExitCode.ACCESS


class AccessDeniedError(ClientError):
    """The user may not do this."""

    exit_code = ExitCode.ACCESS


class SubmissionRefusedError(ClientError):
    """Superset does not take the query, and nothing runs: its broker is away or full, too many wait, or the user has too many."""

    exit_code = ExitCode.REFUSED


class UnexpectedAnswerError(ClientError):
    """An answer that Superset 6.1 does not give, or an error of its own; with its HTTP status where that says something."""

    def __init__(self, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status


class QueryFailedError(ClientError):
    """The query ended `failed`; `status` is None where it was refused before it got an id, and for charts."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, status: QueryStatus | None = None) -> None:
        super().__init__(message)
        self.status = status


class QueryTimedOutError(QueryFailedError):
    """The database's statement timeout, or Superset's limit, ended the query."""

    exit_code = ExitCode.TIMED_OUT


class QueryStoppedError(QueryFailedError):
    """Somebody stopped the query."""

    exit_code = ExitCode.STOPPED


class StillRunningError(ClientError):
    """The caller's own patience ended first; the query goes on."""

    exit_code = ExitCode.TIMED_OUT


class NoWorkerError(ClientError):
    """Nothing took the query from its queue; it stays queued, and runs when a worker comes."""

    exit_code = ExitCode.NO_WORKER


class ResultExpiredError(ClientError):
    """The query succeeded, but its rows are no longer in the results store."""

    exit_code = ExitCode.EXPIRED


class NotStoppedError(ClientError):
    """The server could not stop the query: it is queued, or its database cannot cancel."""

    exit_code = ExitCode.NOT_STOPPED


def ended(status: QueryStatus) -> QueryFailedError | None:
    """The exception for how a query ended, or None where it succeeded; `status` is final."""
    reason = status.error or "Superset gives no reason"
    took = f" after {status.execution_ms / 1000:.1f} s" if status.execution_ms is not None else ""
    match status.state:
        case State.TIMED_OUT:
            return QueryTimedOutError(f"query {status.id} timed out{took}: {reason}", status)
        case State.FAILED:
            return QueryFailedError(f"query {status.id} failed{took}: {reason}", status)
        case State.STOPPED:
            return QueryStoppedError(f"query {status.id} was stopped{took}", status)
        case _:
            return None


def no_worker(query_id: int, waited_seconds: float) -> NoWorkerError:
    """The exception for a query that is still queued after `waited_seconds`."""
    return NoWorkerError(
        f"query {query_id} is still pending after {waited_seconds:g} s: no worker took it from its queue. Either no worker "
        "listens to that queue, or all that do are busy. It stays queued and runs when one comes: "
        f"`superset-async query status {query_id}` shows its state, `superset-async query results {query_id}` waits for it"
    )
