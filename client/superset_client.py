"""Superset's asynchronous queries over its public HTTP API (6.1): submit, follow, fetch, stop; SQL Lab and charts.

    with SupersetClient("http://127.0.0.1:8088", username="admin", password=password) as client:
        run = client.run("SELECT 1", client.database_id("examples"))
        print(run.result.rows, run.timeline)

A client keeps one session: use one a thread.
"""

from __future__ import annotations

import difflib
import secrets
import string
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import httpx

from client.errors import (
    AccessDeniedError,
    NotStoppedError,
    QueryFailedError,
    QueryTimedOutError,
    ResultExpiredError,
    StillRunningError,
    SubmissionRefusedError,
    UnexpectedAnswerError,
    UnknownNameError,
    UnreachableError,
    ended,
    no_worker,
)
from client.operations import Operations
from client.session import REFUSED, RETRY, Session, ask_until, error_kinds, exact_number, json_object, messages, reason
from client.states import (
    Backoff,
    QueryHandle,
    QueryStatus,
    State,
    Timeline,
    clock_offset_ms,
    limit_hit,
    read_status,
    timeline,
)

_CLIENT_ID_LENGTH = 11
_PAGE = 100
#: More names than this are not read to find the nearest one.
_MOST_NAMES = 1000
#: What Superset says of a query's state while its metadata database is away.
_ITS_OWN_ERRORS = frozenset({500, 422})
_QUERY_ACCESS = frozenset(
    {
        "TABLE_SECURITY_ACCESS_ERROR",
        "DATASOURCE_SECURITY_ACCESS_ERROR",
        "DATABASE_SECURITY_ACCESS_ERROR",
        "QUERY_SECURITY_ACCESS_ERROR",
    }
)


@dataclass(frozen=True)
class Column:
    """A column of a result: its name, and its type as the database calls it (None where Superset cannot tell)."""

    name: str
    type: str | None


@dataclass(frozen=True)
class Result:
    """Rows by column name. A number with a fraction that no double has exactly is a Decimal.

    `cut` is whether the row limit cut them: the query itself has more.
    """

    columns: tuple[Column, ...]
    rows: list[dict[str, Any]]
    cut: bool


@dataclass(frozen=True)
class Run:
    """A query from submission to rows."""

    status: QueryStatus
    result: Result
    timeline: Timeline


@dataclass(frozen=True)
class ChartResult:
    """One answer a query of the chart, as Superset gives it (`data`, `colnames`, `rowcount` …), numbers as in `Result`.

    `cached`: Superset had it and answered at once, without a job. A chart's job does not tell when it started.
    """

    queries: list[dict[str, Any]]
    cached: bool
    job_id: str | None
    timeline: Timeline


#: Of a request whose query is to pass the others.
URGENT_HEADER = "X-Superset-Async-Urgent"


def new_client_id() -> str:
    """A fresh name for a submission, of the 11 characters that Superset keeps: 56 bits."""
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(_CLIENT_ID_LENGTH))


class SupersetClient:
    """A session with one Superset.

    `url`: where it is, with a path prefix if it has one. Either `username` and `password`, or `token`, a JWT of its login
    API. `backoff`: how often to ask for a state. `retry_seconds`: for how long a request that may be repeated
    is sent again while the server cannot be reached (a rollout, a restart).

    Only GET is repeated, except what the server refused unread: a request without a valid login (once, after a new one) and
    one above its rate limit. The first request of all is not repeated, so that a wrong address shows at once.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        backoff: Backoff | None = None,
        retry_seconds: float = 20.0,
    ) -> None:
        self._session = Session(url, username, password, token, retry_seconds)
        self.url = self._session.url
        self.operations = Operations(self._session)
        self.username = username
        self.backoff = backoff or Backoff()
        self._retry_seconds = retry_seconds
        self._last_event: str | None = None

    def __repr__(self) -> str:
        return f"SupersetClient({self.url!r}, username={self.username!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def login(self) -> None:
        """Log in (or use the token) and get what submissions need. Called by itself where needed.

        Raises LoginError, UnreachableError.
        """
        self._session.login()

    # SQL

    def submit(
        self,
        sql: str,
        database_id: int,
        *,
        schema: str | None = None,
        limit: int | None = None,
        client_id: str | None = None,
        urgent: bool = False,
    ) -> QueryHandle:
        """Submit `sql` to run asynchronously, for at most `limit` rows (None: the server's own limit).

        `urgent` asks that it pass the others, which the server grants to users with a role that its stack names.

        It is sent once. Should the connection break before the answer, the server is asked whether it has a query of this
        `client_id` (made here where not given). Raises UnknownNameError for the database, AccessDeniedError,
        SubmissionRefusedError, QueryFailedError for SQL that Superset does not even queue.
        """
        client_id = client_id or new_client_id()
        body: dict[str, Any] = {
            "database_id": database_id,
            "sql": sql,
            "runAsync": True,
            "client_id": client_id,
            "sql_editor_id": "superset-async",
            "tab": "superset-async",
            "schema": schema,
            "queryLimit": limit,
        }
        self._session.ensure_login()
        sent_ms = _now_ms()
        try:
            headers = {URGENT_HEADER: "1"} if urgent else None
            answer = self._session.call("POST", "/api/v1/sqllab/execute/", body=body, headers=headers)
        except UnreachableError as error:
            handle = self.find(client_id, sent_ms=sent_ms, patience=5.0) if error.sent else None
            if handle is None:
                raise
            return handle
        if answer.status_code not in (200, 202):
            self._submission_refused(answer, database_id)
        with self._session.shape(answer):
            return QueryHandle(int(json_object(answer)["query"]["queryId"]), client_id, sent_ms, _now_ms())

    def find(self, client_id: str, *, sent_ms: float | None = None, patience: float = 0.0) -> QueryHandle | None:
        """The query that was submitted under `client_id` in the last minutes, or None; asks for `patience` seconds."""
        sent_ms = _now_ms() if sent_ms is None else sent_ms
        since_ms = sent_ms + (self._session.clock_ahead_seconds - 300) * 1000

        def listed() -> QueryHandle | None:
            answer = self._session.call("GET", "/api/v1/query/updated_since", query={"last_updated_ms": int(since_ms)})
            with self._session.shape(answer):
                for record in json_object(answer)["result"]:
                    if record["id"] == client_id:
                        return QueryHandle(int(record["queryId"]), client_id, sent_ms, _now_ms())
            return None

        return ask_until(listed, lambda found: found is not None, RETRY, patience)

    def status(self, query_id: int) -> QueryStatus:
        """The state of a query; UnknownNameError where there is none, or it is another user's."""
        # Whole: Superset takes longer to answer with chosen columns (it builds a schema for them on each request).
        answer = self._session.call("GET", f"/api/v1/query/{query_id}", read_timeout=15)
        if answer.status_code == 404:
            raise UnknownNameError(f"there is no query {query_id}, or it is another user's")
        with self._session.shape(answer):
            return read_status(query_id, json_object(answer)["result"])

    def wait(
        self,
        query: QueryHandle | int,
        on_update: Callable[[QueryStatus], None] | None = None,
        timeout: float | None = None,
        pending_timeout: float | None = 60.0,
    ) -> QueryStatus:
        """Ask for the state, ever less often, until the query has succeeded; `on_update` sees every answer.

        Raises QueryFailedError, QueryTimedOutError, QueryStoppedError with the last status; StillRunningError after
        `timeout` seconds and NoWorkerError after `pending_timeout` seconds in the queue (None: never), and neither of these
        two touches the query. A Superset that answers with an error (its metadata database is away) is asked again for as
        long as one that cannot be reached.
        """
        query_id = query if isinstance(query, int) else query.id
        began = time.monotonic()
        # Nothing has ended yet when a submission is answered; a query of another day may have.
        pause = next(self.backoff.delays()) if isinstance(query, QueryHandle) else 0.0
        patient_until: float | None = None
        # By hand: with two limits of its own, to which pauses are cut, and a patience for errors, this is more than a retry.
        for following in self.backoff.delays():
            time.sleep(pause)
            try:
                status = self.status(query_id)
            except UnexpectedAnswerError as error:
                patient_until = patient_until or time.monotonic() + self._retry_seconds
                if error.http_status not in _ITS_OWN_ERRORS or time.monotonic() > patient_until:
                    raise
                pause = following
                continue
            patient_until = None
            if on_update is not None:
                on_update(status)
            if status.state.final:
                if (failure := ended(status)) is not None:
                    raise failure
                return status
            waited = time.monotonic() - began
            if timeout is not None and waited >= timeout:
                raise StillRunningError(f"query {query_id} is still {status.state} after {timeout:g} s")
            if pending_timeout is not None and status.state is State.PENDING and waited >= pending_timeout:
                raise no_worker(query_id, pending_timeout)
            limits = [limit - waited for limit in (timeout, pending_timeout) if limit is not None and limit > waited]
            pause = min([following, *limits])
        raise AssertionError("a back-off has no end")

    def results(self, query: QueryStatus | QueryHandle | int) -> Result:
        """The rows of a query that has succeeded.

        Raises ResultExpiredError where the results store no longer has them, and what `wait` raises for a query that did not
        succeed; StillRunningError for one that has not ended.
        """
        status = query if isinstance(query, QueryStatus) else self.status(query if isinstance(query, int) else query.id)
        if (failure := ended(status)) is not None:
            raise failure
        if not status.state.final:
            raise StillRunningError(f"query {status.id} is still {status.state}: it has no rows yet")
        if status.results_key is None:
            return Result((), [], cut=False)
        answer = self._session.call("GET", "/api/v1/sqllab/results/", query={"key": status.results_key})
        if answer.status_code in (404, 410):
            raise ResultExpiredError(
                f"query {status.id} succeeded, but the results store no longer has its rows: results are kept for a limited "
                "time (`caching.query_results_ttl` of the stack). Run it again"
            )
        with self._session.shape(answer):
            payload = json_object(answer, exact_number)
            columns = tuple(Column(str(column["column_name"]), column.get("type")) for column in payload["columns"])
            cut = payload["query"].get("limitingFactor") == "DROPDOWN"
            return Result(columns, payload["data"], cut)

    def stop(self, query: QueryHandle | QueryStatus | int, patience: float = 3.0) -> QueryStatus:
        """Stop a query on the server, which cancels it in the database, and return its status after that.

        A query that had ended before stays as it was. Superset cannot stop one whose database session it does not know yet,
        nor, without this project's `runtime/`, one that is queued: this is tried for `patience` seconds, then
        NotStoppedError is raised.
        """
        client_id = self.status(query).client_id if isinstance(query, int) else query.client_id
        query_id = query if isinstance(query, int) else query.id

        def after_stop() -> QueryStatus:
            answer = self._session.call("POST", "/api/v1/query/stop", body={"client_id": client_id})
            status = self.status(query_id)
            if not status.state.final and answer.status_code not in (200, 422):
                self._session.unexpected(answer, f"query {query_id} was not stopped")
            return status

        status = ask_until(after_stop, lambda found: found.state.final, RETRY, patience)
        if status.state.final:
            return status
        why = (
            "it waits in the queue, where Superset cannot stop it, and runs when a worker takes it"
            if status.state is State.PENDING
            else "its database does not cancel queries, or not this one"
        )
        raise NotStoppedError(
            f"query {query_id} could not be stopped: {why}. Try again: superset-async query stop {query_id}"
        )

    def run(
        self,
        sql: str,
        database_id: int,
        *,
        schema: str | None = None,
        limit: int | None = None,
        on_update: Callable[[QueryStatus], None] | None = None,
        timeout: float | None = None,
        pending_timeout: float | None = 60.0,
    ) -> Run:
        """Submit, wait and fetch, with the timeline; raises what these raise, and stops nothing."""
        handle = self.submit(sql, database_id, schema=schema, limit=limit)
        status = self.wait(handle, on_update, timeout, pending_timeout)
        result = self.results(status)
        return Run(status, result, timeline(handle, status, _now_ms()))

    # Charts

    def chart_data(self, payload: Mapping[str, Any], timeout: float = 300.0) -> ChartResult:
        """The data of a chart; `payload` is Superset's query context (`datasource`, `queries`, `force` …).

        Superset answers at once from its cache, or with a job whose event is then waited for. Raises QueryFailedError (also
        for a payload that Superset refuses), QueryTimedOutError, ResultExpiredError, and StillRunningError where no event
        came within `timeout` seconds: the job is queued, runs still, or its worker died.
        """
        self._session.ensure_login()
        sent_ms = _now_ms()
        answer = self._session.call("POST", "/api/v1/chart/data", body=payload)
        answered_ms = _now_ms()
        if answer.status_code == 200:
            at = answered_ms - sent_ms
            with self._session.shape(answer):
                found = json_object(answer, exact_number)["result"]
                return ChartResult(found, True, None, Timeline(None, None, None, fetched=at))
        if answer.status_code != 202:
            self._chart_refused(answer)
        with self._session.shape(answer):
            job_id = str(json_object(answer)["job_id"])
        event = self._chart_event(job_id, timeout)
        finished_ms = float(str(event["id"]).partition("-")[0])
        if event["status"] != "done":
            message = "; ".join(messages(event)) or "Superset gives no reason"
            kind = QueryTimedOutError if limit_hit(message) else QueryFailedError
            raise kind(f"the chart's job {job_id} failed: {message}")
        result_url = str(event["result_url"])
        if not result_url.startswith("/api/v1/chart/data/"):
            raise UnexpectedAnswerError(f"{self.url} sends to {result_url!r} for the data of a chart, which is not its API")
        answer = self._session.call("GET", result_url)
        if answer.status_code in (404, 422):
            raise ResultExpiredError(f"the chart's job {job_id} is done, but the data cache no longer has its data")
        if answer.status_code != 200:
            self._chart_refused(answer)
        fetched_ms = _now_ms()
        # The event's id is the broker's clock, the only one that tells when the job ended.
        finished = finished_ms + clock_offset_ms(finished_ms, answered_ms, fetched_ms) - sent_ms
        moments = Timeline(queued=answered_ms - sent_ms, started=None, finished=finished, fetched=fetched_ms - sent_ms)
        with self._session.shape(answer):
            return ChartResult(json_object(answer, exact_number)["result"], False, job_id, moments)

    def _chart_event(self, job_id: str, timeout: float) -> dict[str, Any]:
        def ended_event() -> dict[str, Any] | None:
            parameters = {"last_id": self._last_event} if self._last_event else None
            answer = self._session.call("GET", "/api/v1/async_event/", parameters=parameters, read_timeout=15)
            with self._session.shape(answer):
                events = cast("list[dict[str, Any]]", json_object(answer)["result"])
            for event in events:
                self._last_event = str(event["id"])
                if event["job_id"] == job_id and event["status"] in ("done", "error"):
                    return event
            return None

        # Nothing has ended yet when a submission is answered.
        time.sleep(self.backoff.pause(1))
        event = ask_until(ended_event, lambda found: found is not None, self.backoff, timeout)
        if event is not None:
            return event
        raise StillRunningError(
            f"the chart's job {job_id} has not ended after {timeout:g} s: it is queued (maybe where no worker "
            "listens), runs still, or its worker died"
        )

    # Names

    def databases(self) -> dict[str, int]:
        """Ids of the databases that the user may see, by name."""
        return self._names("database", "database_name")

    def database_id(self, name: str) -> int:
        """The id of the database called `name`; UnknownNameError with the nearest names."""
        return self._id_of("database", "database_name", name)

    def dataset_id(self, name: str) -> int:
        """The id of the dataset called `name`; UnknownNameError with the nearest names."""
        return self._id_of("dataset", "table_name", name)

    def _id_of(self, kind: str, column: str, name: str) -> int:
        exact = self._names(kind, column, {"filters": [{"col": column, "opr": "eq", "value": name}]})
        if name in exact:
            return exact[name]
        known = sorted(self._names(kind, column))
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:10]
        way_out = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"This user sees no {kind} at all"
        raise UnknownNameError(f"there is no {kind} {name!r} on {self.url}. {way_out}")

    def _names(self, kind: str, column: str, query: Mapping[str, Any] | None = None) -> dict[str, int]:
        found: dict[str, int] = {}
        for page in range(_MOST_NAMES // _PAGE):
            asked = {"columns": ["id", column], "page": page, "page_size": _PAGE, **(query or {})}
            answer = self._session.call("GET", f"/api/v1/{kind}/", query=asked)
            with self._session.shape(answer):
                records = json_object(answer)["result"]
                found |= {str(record[column]): int(record["id"]) for record in records}
            if len(records) < _PAGE:
                break
        return found

    # Answers

    def _submission_refused(self, answer: httpx.Response, database_id: int) -> NoReturn:
        kinds, why = error_kinds(answer), reason(answer)
        if answer.status_code in (429, 503):
            raise SubmissionRefusedError(f"Superset does not take the query: {why}")
        if REFUSED in kinds:
            raise SubmissionRefusedError(
                f"Superset could not hand the query to its broker ({why}): nothing runs. Bring the broker back "
                "(locally: `superset-async status`), then submit again"
            )
        if kinds & _QUERY_ACCESS:
            raise AccessDeniedError(f"{self.url}: {why}")
        if (
            answer.status_code == 404
            or "DATABASE_NOT_FOUND_ERROR" in kinds
            or "database referenced in this query was not found" in why
        ):
            known = ", ".join(f"{number} ({name})" for name, number in sorted(self.databases().items())) or "none"
            raise UnknownNameError(f"there is no database {database_id} on {self.url}. Known: {known}")
        if kinds or answer.status_code in (400, 422) or why.startswith("Failed to execute query"):
            raise QueryFailedError(f"Superset refuses the query: {why}")
        self._session.unexpected(answer, "the query was not queued")

    def _chart_refused(self, answer: httpx.Response) -> NoReturn:
        why = reason(answer)
        if REFUSED in error_kinds(answer):
            raise SubmissionRefusedError(f"Superset does not take the chart's query: {why}")
        if answer.status_code in (400, 404, 422):
            kind = QueryTimedOutError if limit_hit(why) else QueryFailedError
            raise kind(f"Superset refuses the chart's query: {why}")
        self._session.unexpected(answer, "the chart has no data")


def _now_ms() -> float:
    return time.time() * 1000
