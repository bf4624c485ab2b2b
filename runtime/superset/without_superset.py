"""What the reaper needs of Superset, in a process that has none: beat, which would hold the whole application for it.

Rows of SQL Lab's table are read and written by the same statements as in every other process, and a chart's event is written
as Superset writes it. Only cancelling a statement needs Superset, which knows each database's driver, password and tunnel: a
process of its own does it (`runtime.start.canceller`), which is started when something looks lost, and ends when nothing does.

Leans on what `superset.errors.SupersetError` makes of the errors below (read and tested with 6.1.0).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runtime.environment import versions
from runtime.queries import admission, chart_jobs, interfaces
from runtime.queries.canceller import Canceller, CancellerError
from runtime.queries.interfaces import ErrorType, Seen
from runtime.results import followers
from runtime.superset import chart_streams, implementation

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

#: What Superset's pages show beside an error of each type: its number, and its words.
ISSUES: dict[ErrorType, tuple[tuple[int, str], ...]] = {
    "ASYNC_WORKERS_ERROR": ((1035, "Failed to start remote query on a worker."),),
    "RESULTS_BACKEND_ERROR": (
        (1031, "The results backend no longer has the data from the query."),
        (1032, "The query associated with the results was deleted."),
        (
            1033,
            "The results stored in the backend were stored in a different format, and no longer can be deserialized.",
        ),
    ),
    "GENERIC_BACKEND_ERROR": ((1011, "Superset encountered an unexpected error."),),
}


def error(message: str, error_type: ErrorType) -> dict[str, Any]:
    """One error, as Superset's pages expect it, in English."""
    issues = [{"code": code, "message": f"Issue {code} - {words}"} for code, words in ISSUES[error_type]]
    extra = {"engine_name": admission.TITLE, "issue_codes": issues}
    return {"message": message, "error_type": error_type, "level": "error", "extra": extra}


class Ending(implementation.Ending):
    """The same ends, with `events` for Redis's client of the chart events, their bounds, and who cancels."""

    def __init__(self, events: Redis[bytes], channel_events: int, all_events: int, canceller: Canceller) -> None:
        self._events = events
        self._bounds = {"most": channel_events, "most_of_all": all_events}
        self._canceller = canceller
        self._failed = False

    def error(self, message: str, error_type: ErrorType) -> dict[str, Any]:
        """One error, made here."""
        return error(message, error_type)

    def chart(self, job: Mapping[str, Any], message: str, error_type: ErrorType = "ASYNC_WORKERS_ERROR") -> None:
        """By an event in its channel, then in those of the jobs that follow it."""
        errors = [error(message, error_type)]

        def tell(follower: followers.Follower) -> None:
            chart_streams.tell_error(self._events, follower.metadata, errors, **self._bounds)

        chart_streams.tell_error(self._events, implementation.shown(job), errors, **self._bounds)
        followers.end(str(job["job_id"]), tell)
        chart_jobs.remove(job)

    def expect(self) -> None:
        """Start the process that cancels, which takes seconds."""
        self._canceller.expect()

    def cancel(self, query_ids: Sequence[int], seconds: float) -> dict[int, Seen]:
        """By that process. Where it fails once it is tried again at the next sweep; where it fails again, nobody waits for it:
        the statements end by their own limit, and what became of them is not known.
        """
        try:
            seen = self._canceller.cancel(query_ids, seconds)
        except CancellerError:
            self._failed, again = not self._failed, self._failed
            if not again:
                raise
            logger.exception("the queries are ended all the same")
            return dict.fromkeys(query_ids, "unknown")
        self._failed = False
        return seen


def interface(ending: Ending) -> interfaces.Superset:
    """The implementation for a process that has no Superset; UntestedVersionError where the other processes have another one."""
    versions.require(__name__, "apache-superset", "sqlalchemy")
    return interfaces.Superset(implementation.Identification(), implementation.Fence(), ending)
