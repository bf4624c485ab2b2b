"""What a message of Celery asks for, in terms of Superset's queries and charts; and the words for what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from runtime.queries.executions import Kind
from runtime.queries.interfaces import Seen
from runtime.tenants.router import CHART_TASKS, SQL_LAB_TASK

#: Starts the id of the task of a query of SQL Lab; the query's id follows. A chart's task has its job's id.
SQL_TASK = "sql-"
#: Begins the name of an embedded guest in records of what was executed.
GUEST = "guest:"
#: For a statement that may have changed data: said once, and never tried again.
LOST_WRITE = (
    "The worker that ran this statement ended before it could report. The statement may change data, so it was not run a "
    "second time: it may or may not have been committed. Look at the data that it writes before you run it again."
)
#: For a statement that may have changed data, and had begun when it was stopped.
STOPPED_WRITE = (
    "This query was stopped after it had begun. Its statement may change data, and what it had written by then may stand. Look "
    "at the data that it writes before you run it again."
)
#: For a statement that changed data, whose rows could not be stored for its user.
COMMITTED_NOT_KEPT = (
    "This statement was executed and committed; only its result was not kept. Do not run it again: look at the data that it "
    "writes."
)
#: For one of which only its database knows whether it changed data: a function that it calls may have.
EXECUTED_NOT_KEPT = (
    "This statement was executed; only its result was not kept. It may change data: look at the data that it writes before you "
    "run it again."
)
#: For a query that only reads, each time that its rows could not be stored.
READ_NOT_KEPT = (
    "The result of this query could not be stored, so that it cannot be fetched: its store does not take it now. Run the query "
    "again in a minute."
)
#: For a statement that may have changed data, and whose end could not be written.
UNWRITTEN_WRITE = (
    "The metadata database was away while this statement ran, so that its end is not known. The statement may change data, so it "
    "was not run a second time: it may or may not have been committed. Look at the data that it writes before you run it again."
)
#: For a read, each time that its end could not be written.
UNWRITTEN_READ = (
    "The metadata database was away while this query ran, so that its result could not be kept. Run the query again in a "
    "minute."
)
#: For a query whose message nobody will deliver again.
LOST_READ = (
    "The worker that ran this query ended before it could report, and its message cannot be delivered again. "
    "Run the query again."
)


def lost_too_often(attempts: int) -> str:
    """For a read that took its worker along each time."""
    return (
        f"The worker that ran this query ended before it could report, {attempts} times in a row, so it was not run again. It "
        "may need more memory than a worker has: read less at once (filter, aggregate, or select fewer columns)."
    )


#: What follows where a statement that nobody waits for any more was not seen gone from its database.
_GOES_ON: Mapping[Seen, str] = {
    "gone": "",
    "running": " Its statement was told to end in the database, and had not ended when this was written: it may go on.",
    "unknown": " Whether its statement has ended in the database is not known: it may go on there.",
}


def with_seen(message: str, seen: Seen) -> str:
    """What the user of a lost or stopped query is told, with what was seen of its statement in the database."""
    return message + _GOES_ON[seen]


def hard_limit(seconds: float, seen: Seen, *, writes: bool) -> str:
    """For what was ended with its process at the hard limit, by what was seen of its statement in the database."""
    verb, along = ("ended", ", and its statement in the database with it") if seen == "gone" else ("given up", "")
    advice = (
        "The statement may change data, and what it had written may stand. Look at the data that it writes before you run it "
        "again."
        if writes
        else "Read less at once: filter, aggregate, or query an indexed column."
    )
    said = f"This query was {verb} after {seconds:.0f} s, the longest that any task may take{along}."
    return f"{with_seen(said, seen)} {advice}"


def soft_limit(seconds: float) -> str:
    """For what was told to stop at the soft limit."""
    return (
        f"This query was ended after {seconds:.0f} s, the limit of the stack. Read less at once: filter, aggregate, or query "
        "an indexed column; or try again when the database has less to do."
    )


def broken(error: str) -> str:
    """For what Superset itself did not expect."""
    return f"This query ended with an error that Superset did not expect ({error}). Run it again."


@dataclass(frozen=True)
class Work:
    """One query of SQL Lab (`subject` is its id, `sql` as rendered) or one chart's job (`job` is Superset's job_metadata).

    `source` is the chart's dataset id, None where it is not a dataset's. `username` may be empty: then `user_id` has it.
    """

    kind: Kind
    subject: str
    sql: str
    job: Mapping[str, Any]
    source: int | None
    username: str
    user_id: int | None


def of(task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Work | None:
    """The work that a message of `task` asks for; None where it is no query, or malformed."""
    try:
        if task == SQL_LAB_TASK:
            query_id = int(args[0] if args else kwargs["query_id"])
            sql = str(args[1] if len(args) > 1 else kwargs["rendered_query"])
            return Work("sql", str(query_id), sql, {}, None, str(kwargs.get("username") or ""), None)
        if task in CHART_TASKS:
            job = dict(cast("Mapping[str, Any]", args[0] if args else kwargs["job_metadata"]))
            form = cast("Mapping[str, Any]", args[1] if len(args) > 1 else kwargs["form_data"])
            guest = cast("Mapping[str, Any]", job.get("guest_token") or {})
            named = str(guest.get("user", {}).get("username") or "")
            # Whoever makes a guest's token chooses the name: it may be a user's.
            username = f"{GUEST}{named}" if named else ""
            return Work("chart", str(job["job_id"]), "", job, _dataset(form), username, job.get("user_id"))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    return None


def _dataset(form: Mapping[str, Any]) -> int | None:
    """The dataset of a chart's form data: {"id": 1, "type": "table"} of a query context, "1__table" of explore."""
    source = cast(Any, form.get("datasource"))
    if isinstance(source, dict):
        named = cast("dict[str, Any]", source)
        source = f"{named.get('id')}__{named.get('type')}"
    number, _, kind = str(source).partition("__")
    return int(number) if kind == "table" and number.isdigit() else None
