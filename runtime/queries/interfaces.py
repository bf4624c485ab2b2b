"""What the life of a query needs of Superset, in four small interfaces and in our own words.

`runtime.superset.implementation` implements them for Superset 6.1. Everything in this room works against them alone, so that
what another Superset does by itself, or otherwise, changes there and not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from runtime.environment.metadata_database import Connection

#: The states of a query that has not ended; all others are final.
OPEN_STATES = ("pending", "running", "scheduled", "fetching")

ErrorType = Literal["ASYNC_WORKERS_ERROR", "RESULTS_BACKEND_ERROR", "GENERIC_BACKEND_ERROR"]

#: What was seen of a statement in its database after it was cancelled. `gone`: no session executes it. `running`: its session was
#: told to end, and is still there. `unknown`: the database was not reached, or cannot say.
Seen = Literal["gone", "running", "unknown"]


class Submission(Protocol):
    """Submit: one query or chart that Superset hands over, as `admission.submit` has it sent."""

    @property
    def name(self) -> str:
        """What it is called in a log."""
        ...

    @property
    def queue(self) -> str:
        """The queue that its message goes to."""
        ...

    @property
    def user(self) -> str:
        """Whom it counts for."""
        ...

    def in_flight(self) -> int:
        """How many other queries and charts of its principal were admitted and have not ended.

        Until `record` has returned, nobody else of the same principal is told: of two at once the second counts the first.
        """
        ...

    def record(self) -> None:
        """Write down, for good, that it is admitted and about to be sent. A Refusal where that cannot be."""
        ...

    def send(self) -> Any:
        """Hand it to the broker; what Superset wants of that. Raises what kombu or redis-py raise."""
        ...

    def withdraw(self) -> None:
        """It was not sent: undo what only a sent one needs. It never fails."""
        ...


@dataclass(frozen=True)
class Identified:
    """Whose a query or chart is, and how it stands. `status` is that of a query's row: None without one, and for a chart.

    `submitted_at` is in seconds since the epoch, None where it is not known.
    """

    status: str | None
    error: str
    username: str
    database_name: str
    writes: bool
    submitted_at: float | None


@dataclass(frozen=True)
class OpenQuery:
    """A query that has not ended: `task_id` is None for a synchronous one, `seconds` is its age."""

    id: int
    running: bool
    task_id: str | None
    seconds: float


class Identification(Protocol):
    """Identify: what Superset knows of a query. `connection` is one to the metadata database, here and below."""

    def query(self, connection: Connection, query_id: int, sql: str) -> Identified | None:
        """A query of SQL Lab that executes `sql`; None where it has no row."""
        ...

    def chart(self, connection: Connection, dataset_id: int | None, user_id: int | None) -> Identified:
        """A chart of this dataset, for this user."""
        ...

    def open_queries(self, connection: Connection) -> Iterable[OpenQuery]:
        """All queries of SQL Lab that have not ended."""
        ...


class Fence(Protocol):
    """Fence an execution: the steps that a query takes while it is open, each only from the states that it names.

    Each is one conditional statement, and holds the query's row until its caller commits: of two steps at once, the second sees
    the state that the first has left.
    """

    def begin(self, connection: Connection, query_id: int) -> bool:
        """Make an open query running; False where it has ended, or was stopped."""
        ...

    def stop(self, connection: Connection, query_id: int) -> str | None:
        """Make an open query stopped; the state that it was in, which is final where nothing was done, and None without a row."""
        ...

    def say(self, connection: Connection, query_id: int, message: str) -> None:
        """Have a stopped query say `message` as well."""
        ...

    def put_back(self, connection: Connection, query_id: int) -> bool:
        """Make a running query pending, since it will be executed again; False where it does not run any more."""
        ...


class Ending(Protocol):
    """End: write what became of a query that no process of Superset's will finish, and cancel what it does."""

    def query(
        self,
        connection: Connection,
        query_id: int,
        message: str,
        error_type: ErrorType = "ASYNC_WORKERS_ERROR",
        states: Sequence[str] = OPEN_STATES,
    ) -> bool:
        """Make a query in one of `states` failed, with `message`; False where it is in another, or is none.

        The caller commits.
        """
        ...

    def state(self, connection: Connection, query_id: int) -> tuple[str | None, str]:
        """The state and the error of a query; None and nothing for one that is not there."""
        ...

    def chart(self, job: Mapping[str, Any], message: str, error_type: ErrorType = "ASYNC_WORKERS_ERROR") -> None:
        """Tell the browser that waits for chart `job` (Superset's job_metadata) that it failed. Raises redis-py's errors."""
        ...

    def expect(self) -> None:
        """Statements may have to be cancelled soon: get ready for it. Returns at once, and never fails."""
        ...

    def cancel(self, query_ids: Sequence[int], seconds: float) -> Mapping[int, Seen]:
        """Cancel the statements of these queries, all at once, each in its database; what was seen of each.

        It returns when all databases have answered or have failed, and after `seconds` at the latest: what has not answered by
        then is `unknown`. Raises SQLAlchemy's errors of the metadata database.
        """
        ...


@dataclass(frozen=True)
class Superset:
    """The implementation of this process's Superset. (Submissions come with the query that they are.)"""

    identification: Identification
    fence: Fence
    ending: Ending


_superset: list[Superset] = []


def use(implementation: Superset) -> None:
    """Have this process ask `implementation`."""
    _superset[:] = [implementation]


def superset() -> Superset:
    """The implementation of this process; IndexError in one that was not configured."""
    return _superset[0]
