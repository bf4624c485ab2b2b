"""The client against a real HTTP server on loopback that plays Superset's recorded answers, failures included."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest

from client import errors
from client.session import checked_url
from client.states import Backoff, QueryStatus
from client.superset_client import SupersetClient
from tests.client.conftest import DROP, PASSWORD, USER, Answer, Playing, record, refusal, result

QUICK = Backoff(first=0.005, factor=1.2, cap=0.02)
EXECUTE, STOP = "/api/v1/sqllab/execute/", "/api/v1/query/stop"
RESULTS, STATUS = "/api/v1/sqllab/results/", "/api/v1/query/7"
LOGIN, CSRF = "/api/v1/security/login", "/api/v1/security/csrf_token/"
CHART, EVENTS = "/api/v1/chart/data", "/api/v1/async_event/"
RESULT_URL = "/api/v1/chart/data/qc-cb87"
NOT_SUPERSET = Answer("<html>some other site</html>", 404)
UNAUTHORIZED = Answer({"msg": "Token has expired"}, 401, {"Set-Cookie": "session=stranger; Path=/"})


def client_of(superset: Playing, **options: Any) -> SupersetClient:
    return SupersetClient(
        superset.url, **({"username": USER, "password": PASSWORD} | options), backoff=QUICK, retry_seconds=1.5
    )


def test_a_cookie_for_https_alone_is_sent_over_a_port_forward(superset: Playing) -> None:
    secure = {"Set-Cookie": "session=one; Secure; HttpOnly; Path=/; SameSite=Lax"}
    superset.on("GET", CSRF, Answer({"result": "a-csrf"}, headers=secure))
    superset.query(record())
    superset.on("GET", RESULTS, Answer(result()))
    with client_of(superset) as client:
        client.run("select 1", 3)
    assert {request.headers["cookie"] for request in superset.requests[2:]} == {"session=one"}


def test_a_query_is_submitted_followed_and_fetched(superset: Playing) -> None:
    superset.query(record("pending"), record("running"), record("running"), record())
    superset.on("GET", RESULTS, Answer(result()))
    seen: list[QueryStatus] = []
    with client_of(superset) as client:
        run = client.run("select 1", 3, schema="public", limit=10, on_update=seen.append)
    assert [status.state for status in seen] == ["pending", "running", "running", "success"]
    assert run.result.rows == [{"n": 1, "x": None}]
    assert [column.name for column in run.result.columns] == ["n", "x"]
    assert None not in run.timeline.as_dict().values()
    login, _, execute, *_ = superset.requests
    assert login.body == {"username": USER, "password": PASSWORD, "provider": "db", "refresh": False}
    client_id = execute.body.pop("client_id")
    assert len(client_id) == 11
    assert execute.body == {
        "database_id": 3,
        "sql": "select 1",
        "runAsync": True,
        "sql_editor_id": "superset-async",
        "tab": "superset-async",
        "schema": "public",
        "queryLimit": 10,
    }
    assert execute.headers["x-csrftoken"] == "a-csrf"
    assert execute.headers["authorization"] == "Bearer a-token"
    assert execute.headers["cookie"] == "session=one"
    (fetch,) = superset.asked("GET", RESULTS)
    assert unquote(fetch.query["q"]) == "(key:'4e461c84-b606-41a5-b90a-b29c853f16a1')"


def test_rows_are_known_to_be_cut_by_the_limit_only(superset: Playing) -> None:
    superset.query(record())
    cut: list[bool] = []
    for factor in ("NOT_LIMITED", "QUERY", "QUERY_AND_DROPDOWN", "DROPDOWN"):
        superset.on("GET", RESULTS, Answer(result(limiting_factor=factor)))
        with client_of(superset) as client:
            cut.append(client.results(7).cut)
    assert cut == [False, False, False, True]


def run(client: SupersetClient) -> object:
    return client.run("select 1", 1, timeout=0.2, pending_timeout=0.1)


def chart(client: SupersetClient) -> object:
    return client.chart_data({"queries": []}, timeout=0.1)


JOB = Answer({"channel_id": "c", "errors": [], "job_id": "mine", "result_url": None, "status": "pending", "user_id": 1}, 202)


def event(job: str = "mine", status: str = "done", number: int = 0, **more: Any) -> dict[str, Any]:
    shape = {"channel_id": "c", "errors": [], "user_id": 1, "id": f"1795410391503-{number}", "job_id": job, "status": status}
    return shape | {"result_url": RESULT_URL if status == "done" else None} | more


Script = list[tuple[str, str, Answer]]
SUBMITTED = ("POST", EXECUTE, Answer({"query": {"queryId": 7, "id": "x"}}, 202))


def at(status: str, **changes: Any) -> tuple[str, str, Answer]:
    return ("GET", STATUS, Answer({"id": 7, "result": record(status, **changes)}))


def events(*happened: dict[str, Any]) -> tuple[str, str, Answer]:
    return ("GET", EVENTS, Answer({"result": list(happened)}))


# What the server says -> the exception, and what its message must tell.
FAILURES: dict[str, tuple[Script, Callable[[SupersetClient], object], type[errors.ClientError], str]] = {
    "wrong password": (
        [("POST", LOGIN, Answer({"message": "Not authorized"}, 401))],
        run,
        errors.LoginError,
        "refuses user 'ada': wrong username or password",
    ),
    "not a Superset": (
        [("POST", LOGIN, NOT_SUPERSET)],
        run,
        errors.UnexpectedAnswerError,
        "is this the address of a Superset?",
    ),
    "answers of something else": (
        [("POST", LOGIN, Answer("<html>hello</html>"))],
        run,
        errors.UnexpectedAnswerError,
        "not an answer of Superset 6.1",
    ),
    "no permission": (
        [("POST", EXECUTE, Answer({"message": "Forbidden"}, 403))],
        run,
        errors.AccessDeniedError,
        "user 'ada' may not do this: Forbidden",
    ),
    "no access to a table": (
        [("POST", EXECUTE, refusal(500, "You need access to the following tables: pay", "TABLE_SECURITY_ACCESS_ERROR"))],
        run,
        errors.AccessDeniedError,
        "following tables: pay",
    ),
    "unknown database": (
        [
            ("POST", EXECUTE, refusal(500, "The database referenced in this query was not found.", "GENERIC_BACKEND_ERROR")),
            ("GET", "/api/v1/database/", Answer({"result": [{"id": 1, "database_name": "examples"}]})),
        ],
        run,
        errors.UnknownNameError,
        "there is no database 1 on .* Known: 1 \\(examples\\)",
    ),
    "broker down": (
        [("POST", EXECUTE, refusal(500, "Failed to start remote query on a worker.", "ASYNC_WORKERS_ERROR"))],
        run,
        errors.SubmissionRefusedError,
        "nothing runs. Bring the broker back",
    ),
    "too many wait": (
        [("POST", EXECUTE, refusal(429, "1000 queries wait in queue 'a' already", "ASYNC_WORKERS_ERROR"))],
        run,
        errors.SubmissionRefusedError,
        "does not take the query: 1000 queries wait",
    ),
    "broker full": (
        [("POST", EXECUTE, refusal(503, "The broker's memory is full", "ASYNC_WORKERS_ERROR"))],
        run,
        errors.SubmissionRefusedError,
        "does not take the query: The broker's memory is full",
    ),
    "not SQL": (
        [("POST", EXECUTE, refusal(422, "Error parsing near '+' at line 1:13", "INVALID_SQL_ERROR"))],
        run,
        errors.QueryFailedError,
        "Error parsing near '\\+'",
    ),
    "a comment only": (
        [("POST", EXECUTE, refusal(500, "Failed to execute query '23' - '': list index out of range", None))],
        run,
        errors.QueryFailedError,
        "list index out of range",
    ),
    "a defect of the server": (
        [("POST", EXECUTE, Answer("<html>oops</html>", 500))],
        run,
        errors.UnexpectedAnswerError,
        "answered 500 to POST /api/v1/sqllab/execute/ \\(an answer of text/html\\)",
    ),
    "failed": (
        [SUBMITTED, at("failed", error_message='postgresql error: relation "x" does not exist')],
        run,
        errors.QueryFailedError,
        'query 7 failed after 0.1 s: postgresql error: relation "x" does not exist',
    ),
    "timed out": (
        [SUBMITTED, at("failed", error_message="canceling statement due to statement timeout")],
        run,
        errors.QueryTimedOutError,
        "query 7 timed out after 0.1 s: canceling statement due to statement timeout",
    ),
    "stopped": ([SUBMITTED, at("stopped")], run, errors.QueryStoppedError, "query 7 was stopped after 0.1 s"),
    "a state of another Superset": (
        [SUBMITTED, at("quantum")],
        run,
        errors.UnexpectedAnswerError,
        "unknown query state 'quantum'",
    ),
    "no worker": ([SUBMITTED, at("pending")], run, errors.NoWorkerError, "query 7 is still pending after 0.1 s: no worker"),
    "too slow for the caller": (
        [SUBMITTED, at("running")],
        run,
        errors.StillRunningError,
        "query 7 is still running after 0.2",
    ),
    "expired": (
        [SUBMITTED, at("success"), ("GET", RESULTS, refusal(410, "Data could not be retrieved", "RESULTS_BACKEND_ERROR"))],
        run,
        errors.ResultExpiredError,
        "query 7 succeeded, but the results store no longer has its rows",
    ),
    "rows of a running query": ([at("running")], lambda it: it.results(7), errors.StillRunningError, "has no rows yet"),
    "unknown query": ([], lambda it: it.status(7), errors.UnknownNameError, "there is no query 7, or it is another user's"),
    "chart refused": (
        [("POST", CHART, Answer({"message": "Empty query?"}, 400))],
        chart,
        errors.QueryFailedError,
        "Empty query",
    ),
    "chart failed": (
        [("POST", CHART, JOB), events(event("other"), event(status="error", errors=[{"message": "Error: no column"}]))],
        chart,
        errors.QueryFailedError,
        "job mine failed: Error: no column",
    ),
    "chart timed out": (
        [("POST", CHART, JOB), events(event(status="error", errors=["canceling statement due to statement timeout"]))],
        chart,
        errors.QueryTimedOutError,
        "statement timeout",
    ),
    "no event": ([("POST", CHART, JOB), events(event("other"))], chart, errors.StillRunningError, "job mine has not ended"),
    "chart expired": (
        [
            ("POST", CHART, JOB),
            events(event()),
            ("GET", RESULT_URL, Answer({"message": "Error loading data from cache"}, 422)),
        ],
        chart,
        errors.ResultExpiredError,
        "data cache no longer has its data",
    ),
    "sent elsewhere": (
        [("POST", CHART, JOB), events(event(result_url="//evil.example/steal"))],
        chart,
        errors.UnexpectedAnswerError,
        "evil",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_each_failure_has_its_exception_and_says_why(superset: Playing, case: str) -> None:
    script, act, kind, message = FAILURES[case]
    for method, path, answer in script:
        superset.on(method, path, answer)
    with client_of(superset) as client, pytest.raises(errors.ClientError, match=message) as caught:
        act(client)
    assert type(caught.value) is kind
    assert PASSWORD not in str(caught.value)
    assert "a-token" not in str(caught.value)


def test_every_cause_that_a_script_must_tell_apart_has_its_own_exit_code() -> None:
    codes = {kind: kind.exit_code for _, _, kind, _ in FAILURES.values()}
    assert codes == {
        errors.LoginError: 4,
        errors.AccessDeniedError: 4,
        errors.UnexpectedAnswerError: 1,
        errors.UnknownNameError: 2,
        errors.SubmissionRefusedError: 10,
        errors.QueryFailedError: 5,
        errors.QueryTimedOutError: 6,
        errors.StillRunningError: 6,
        errors.QueryStoppedError: 7,
        errors.ResultExpiredError: 8,
        errors.NoWorkerError: 9,
    }


def test_a_get_that_did_not_get_through_is_repeated(superset: Playing) -> None:
    superset.query(record())
    done = Answer({"id": 7, "result": record()})
    superset.on("GET", STATUS, DROP, Answer("bad gateway", 502), Answer({}, 429), done)
    with client_of(superset) as client:
        client.login()
        assert client.status(7).state == "success"
    assert len(superset.asked("GET", STATUS)) == 4


def test_a_store_behind_superset_that_is_away_is_told_in_its_own_words(superset: Playing) -> None:
    """And a proxy's page is not: it has none."""
    superset.query(record())
    with client_of(superset) as client:
        superset.on("GET", RESULTS, refusal(503, "Their store does not answer. They are not lost", "RESULTS_BACKEND_ERROR"))
        with pytest.raises(errors.UnreachableError, match=r"cannot answer now: Their store .* They are not lost"):
            client.results(7)
        superset.on("GET", RESULTS, Answer("no upstream", 503))
        with pytest.raises(errors.UnreachableError, match="its proxy says 503"):
            client.results(7)


def test_a_superset_without_its_database_is_asked_again_for_a_query_s_state(superset: Playing) -> None:
    superset.query(record())
    done = Answer({"id": 7, "result": record()})
    superset.on("GET", STATUS, Answer({"message": "no connection"}, 500), Answer({"message": "no connection"}, 422), done)
    with client_of(superset) as client:
        assert client.wait(7).state == "success"
        superset.on("GET", STATUS, Answer({"message": "no connection"}, 500))
        with pytest.raises(errors.UnexpectedAnswerError, match="answered 500") as caught:
            client.wait(7)
    assert caught.value.http_status == 500
    assert len(superset.asked("GET", STATUS)) > 5


def test_a_login_above_the_rate_limit_is_tried_again_though_it_is_the_first_request(superset: Playing) -> None:
    superset.on("POST", LOGIN, Answer({}, 429), Answer({}, 429), Answer({"access_token": "a-token"}))
    with client_of(superset) as client:
        client.login()
    assert len(superset.asked("POST", LOGIN)) == 3


def test_a_server_that_stays_away_is_reported_within_the_patience(superset: Playing) -> None:
    superset.on("GET", STATUS, DROP)
    with client_of(superset) as client:
        client.login()
        with pytest.raises(errors.UnreachableError, match=r"no answer from .* is Superset up there"):
            client.status(7)
    # Pauses of 0.1, 0.2, 0.4 and 0.8 s between five are all of it.
    assert 2 < len(superset.asked("GET", STATUS)) <= 5


def test_a_wrong_address_shows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(seconds: float) -> None:
        raise AssertionError(f"it waits {seconds} s")

    monkeypatch.setattr(time, "sleep", wait)
    with (
        SupersetClient("http://127.0.0.1:1", token="t", retry_seconds=60) as client,
        pytest.raises(errors.UnreachableError, match="Connection refused") as caught,
    ):
        client.submit("select 1", 1)
    assert not caught.value.sent


def test_a_submission_is_never_sent_twice_and_found_when_its_answer_was_lost(superset: Playing) -> None:
    superset.query(record(), submitted=DROP)
    superset.on(
        "GET",
        "/api/v1/query/updated_since",
        Answer({"result": []}),
        Answer({"result": [{"id": "other", "queryId": 6}, {"id": "mine", "queryId": 7}]}),
    )
    with client_of(superset) as client:
        handle = client.submit("insert into t values (1)", 1, client_id="mine")
    assert (handle.id, handle.client_id) == (7, "mine")
    assert len(superset.asked("POST", EXECUTE)) == 1
    asked = superset.asked("GET", "/api/v1/query/updated_since")[0].query["q"]
    since = int(asked.removeprefix("(last_updated_ms:").removesuffix(")"))
    assert 0 < time.time() * 1000 - since < 400_000


def test_an_expired_login_is_renewed_once_and_the_event_channel_survives(superset: Playing) -> None:
    superset.query(record())
    superset.on("GET", STATUS, UNAUTHORIZED, Answer({"id": 7, "result": record()}))
    superset.on(
        "GET", CSRF, Answer({"result": "a-csrf"}, headers={"Set-Cookie": "session=one; Path=/"}), Answer({"result": "new"})
    )
    with client_of(superset) as client:
        assert client.status(7).state == "success"
    first, second = superset.asked("POST", LOGIN)
    assert "cookie" not in first.headers
    assert "cookie" not in second.headers
    assert [one.headers["cookie"] for one in superset.asked("GET", STATUS)] == ["session=one"] * 2
    superset.on("GET", STATUS, UNAUTHORIZED)
    with client_of(superset) as client, pytest.raises(errors.LoginError, match="it has just accepted"):
        client.status(7)
    assert len(superset.asked("GET", STATUS)) == 4


@pytest.mark.parametrize("refused", [UNAUTHORIZED, Answer({"msg": "Not enough segments"}, 422)])
def test_a_token_that_is_refused_cannot_be_renewed(superset: Playing, refused: Answer) -> None:
    superset.query(record())
    with client_of(superset, username=None, password=None, token="a-token") as client:
        assert client.status(7).state == "success"
        superset.on("GET", STATUS, refused)
        with pytest.raises(errors.LoginError, match="refuses the token"):
            client.status(7)
    superset.on("GET", CSRF, refused)
    with client_of(superset, username=None, password=None, token="a-token") as client, pytest.raises(errors.LoginError):
        client.status(7)
    assert not superset.asked("POST", LOGIN)


def test_stop_waits_for_what_superset_cannot_stop_yet(superset: Playing) -> None:
    cannot = Answer({"message": "Could not cancel query"}, 422)
    superset.query(record("pending"), record("running"), record("stopped"))
    superset.on("POST", STOP, cannot, Answer({"result": "OK"}))
    with client_of(superset) as client:
        assert client.stop(client.submit("select 1", 1, client_id="mine")).state == "stopped"
    assert [one.body for one in superset.asked("POST", STOP)] == [{"client_id": "mine"}] * 3
    superset.query(record("pending"))
    superset.on("POST", STOP, cannot)
    with client_of(superset) as client, pytest.raises(errors.NotStoppedError, match=r"waits in the queue.* query stop 7"):
        client.stop(7, patience=0.1)


def test_a_chart_from_the_cache_needs_no_job(superset: Playing) -> None:
    superset.on("POST", CHART, Answer({"result": [{"data": [{"n": 1}]}]}))
    with client_of(superset) as client:
        answer = client.chart_data({"queries": []})
    assert (answer.cached, answer.job_id, answer.queries) == (True, None, [{"data": [{"n": 1}]}])


def test_a_charts_job_is_followed_among_others_and_events_are_read_once(superset: Playing) -> None:
    superset.on("POST", CHART, JOB)
    none = Answer({"result": []})
    happened = Answer({"result": [event("other", number=1), event(status="running", number=2), event(number=3)]})
    superset.on("GET", EVENTS, none, happened)
    superset.on("GET", RESULT_URL, Answer({"result": [{"data": [{"n": 1}]}]}))
    with client_of(superset) as client:
        answer = client.chart_data({"queries": []})
        client.chart_data({"queries": []})
    assert (answer.cached, answer.job_id, answer.queries) == (False, "mine", [{"data": [{"n": 1}]}])
    line = answer.timeline
    assert line.queued is not None
    assert line.finished is not None
    assert 0 < line.queued <= line.finished <= line.fetched
    asked = [one.query.get("last_id") for one in superset.asked("GET", EVENTS)]
    assert asked == [None, None, "1795410391503-3"]


def test_names(superset: Playing) -> None:
    pages = [[{"id": 100 * page + at, "database_name": f"db{100 * page + at}"} for at in range(100)] for page in range(2)]
    first, second = (Answer({"result": page}) for page in pages)
    superset.on("GET", "/api/v1/database/", Answer({"result": [{"id": 5, "database_name": "sales"}]}))
    with client_of(superset) as client:
        assert client.database_id("sales") == 5
        assert unquote(superset.requests[-1].query["q"]) == (
            "(columns:!(id,database_name),filters:!((col:database_name,opr:eq,value:sales)),page:0,page_size:100)"
        )
        superset.on("GET", "/api/v1/database/", first, second, Answer({"result": []}))
        assert client.databases() == {f"db{number}": number for number in range(200)}
        superset.on("GET", "/api/v1/database/", Answer({"result": []}), first, second, Answer({"result": []}))
        with pytest.raises(errors.UnknownNameError, match=r"there is no database 'db_199' .* Did you mean 'db199'"):
            client.database_id("db_199")
        superset.on("GET", "/api/v1/dataset/", Answer({"result": []}))
        with pytest.raises(errors.UnknownNameError, match="sees no dataset at all"):
            client.dataset_id("orders")


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("ftp://host", "must be http"),
        ("host:8088", "must be http"),
        ("http://", "must be http"),
        ("http://ada:pw@host", "leave it out"),
        ("http://[::1", "is not one"),
    ],
)
def test_urls_that_are_none(url: str, fault: str) -> None:
    with pytest.raises(errors.UsageError, match=fault) as caught:
        checked_url(url)
    assert "pw@" not in str(caught.value)


def test_what_a_client_needs_and_what_it_shows() -> None:
    for username, password, token in ((None, None, None), ("a", None, None), ("a", "b", "t")):
        with pytest.raises(errors.UsageError, match="either a username and a password, or a token"):
            SupersetClient("http://host", username=username, password=password, token=token)
    assert repr(SupersetClient("https://host/bi/", username="ada", password=PASSWORD)) == (
        "SupersetClient('https://host/bi', username='ada')"
    )
