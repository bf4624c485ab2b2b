"""`superset-async query` in this process, against the server that plays Superset: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from client.errors import ExitCode
from ops.query import app, with_command
from tests.client.conftest import PASSWORD, USER, Answer, Playing, record, refusal, result

STOP, RESULTS, STATUS = "/api/v1/query/stop", "/api/v1/sqllab/results/", "/api/v1/query/7"
Query = Callable[..., Result]


@pytest.fixture
def query(superset: Playing, tmp_path: Path) -> Query:
    """Call the command as a script would, with the connection in its environment."""
    superset.query(record("running"), record())
    superset.on("GET", RESULTS, Answer(result()))
    superset.on("GET", "/api/v1/database/", Answer({"result": [{"id": 3, "database_name": "sales"}]}))
    superset.on("POST", STOP, Answer({"result": "OK"}))
    env = {
        "SUPERSET_ASYNC_STATE": str(tmp_path / "no-state"),
        "SUPERSET_ASYNC_URL": superset.url,
        "SUPERSET_ASYNC_USERNAME": USER,
        "SUPERSET_ASYNC_PASSWORD": PASSWORD,
    }

    def call(*arguments: str, stdin: str | None = None, **more: str) -> Result:
        return CliRunner(env=env | more).invoke(app, list(arguments), input=stdin, catch_exceptions=False)

    return call


COMMANDS = ["run", "status", "results", "stop", "list"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["SELECT 1"], ["run", "SELECT 1"]),
        (["SELECT 1", "--limit", "2"], ["run", "SELECT 1", "--limit", "2"]),
        (["--format", "csv", "SELECT 1"], ["run", "--format", "csv", "SELECT 1"]),
        (["-"], ["run", "-"]),
        (["SELECT(1)"], ["run", "SELECT(1)"]),
        (["run", "COMMIT"], ["run", "COMMIT"]),
        (["status", "7"], ["status", "7"]),
        (["stop", "7", "--stack", "x"], ["stop", "7", "--stack", "x"]),
        # A mistyped command, or a statement of one word, is not sent to a database by surprise.
        (["stauts", "7"], ["stauts", "7"]),
        (["COMMIT"], ["COMMIT"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_sql_and_commands_are_told_apart(given: Sequence[str], meant: list[str]) -> None:
    assert with_command(given, COMMANDS) == meant


def test_rows_alone_on_stdout_and_off_a_terminal_the_querys_id_on_stderr(query: Query, superset: Playing) -> None:
    for arguments in (["select 1"], ["run", "select 1"]):
        done = query(*arguments, "-f", "csv")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "n,x\n1,\n", "query 7\n")
    assert superset.asked("POST", "/api/v1/sqllab/execute/")[0].body["database_id"] == 3
    done = query("select 1", "--timeline", "--database", "sales", "--format", "json", "--limit", "5")
    assert done.stdout == '[\n{"n": 1, "x": null}\n]\n'
    assert done.stderr.startswith("query 7\nquery 7: submitted 0 · queued ")
    assert superset.asked("POST", "/api/v1/sqllab/execute/")[-1].body["queryLimit"] == 5


def test_an_urgent_query_says_so_in_a_header_and_others_do_not(query: Query, superset: Playing) -> None:
    for option in ([], ["--urgent"]):
        assert query("select 1", *option).exit_code == 0
    marked = [one.headers.get("x-superset-async-urgent") for one in superset.asked("POST", "/api/v1/sqllab/execute/")]
    assert marked == [None, "1"]


def test_the_sql_may_come_from_a_file_or_stdin(query: Query, superset: Playing, tmp_path: Path) -> None:
    file = tmp_path / "q.sql"
    file.write_text("select 'fïle'")
    query("--file", str(file))
    query("--file", "-", stdin="select 'stdin'")
    query("-", stdin="select 'dash'")
    sent = [one.body["sql"] for one in superset.asked("POST", "/api/v1/sqllab/execute/")]
    assert sent == ["select 'fïle'", "select 'stdin'", "select 'dash'"]


def test_a_file_of_rows_is_whole_or_as_it_was(query: Query, superset: Playing, tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("before")
    target.chmod(0o640)
    superset.query(record("failed", error_message="boom"))
    assert query("select 1", "-f", "csv", "-o", str(target)).exit_code == 5
    assert target.read_text() == "before"
    superset.query(record())
    done = query("select 1", "-f", "csv", "-o", str(target))
    assert (done.exit_code, done.stdout, target.read_text()) == (0, "", "n,x\n1,\n")
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [target]
    assert query("select 1", "-f", "csv", "-o", "/dev/full").exit_code == 1


def test_rows_that_a_limit_cut_are_announced(query: Query, superset: Playing) -> None:
    superset.on("GET", RESULTS, Answer(result(limiting_factor="DROPDOWN")))
    assert (
        query("select 1", "--limit", "1").stderr
        == "query 7\nwarning: only the first 1 rows, because of --limit; the query has more\n"
    )
    assert "because of the server's row limit" in query("select 1").stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["run"], "give the SQL either as the argument or by --file"),
        (["select 1", "--file", "x"], "give the SQL either as the argument or by --file"),
        (["--file", "/nowhere"], "--file /nowhere: cannot be read (No such file or directory)"),
        (["run", "  "], "the SQL is empty"),
        (["select 1", "-o", "/nowhere/x"], "wants a file in a folder that exists"),
        (["select 1", "-o", "/tmp"], "wants a file in a folder that exists"),
        (["select 1", "--url", "ftp://x"], "must be http"),
        (["select 1", "-d", "sails"], "Did you mean 'sales'?"),
        (["stauts", "7"], "No such command 'stauts'. Did you mean 'status'"),
        (["COMMIT"], "No such command 'COMMIT'"),
        (["status", "x"], "unable to parse string as an integer"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_submitted(
    query: Query, superset: Playing, arguments: list[str], fault: str
) -> None:
    done = query(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert fault in " ".join(done.stderr.replace("│", " ").split())
    assert not superset.asked("POST", "/api/v1/sqllab/execute/")


@pytest.mark.parametrize(
    ("state", "code", "message"),
    [
        (
            record("failed", error_message="postgresql error: boom"),
            5,
            "error: query 7 failed after 0.1 s: postgresql error: boom\n",
        ),
        (record("failed", error_message="\x1b]0;owned\x07"), 5, "\\x1b]0;owned\\x07"),
        (record("failed", error_message="canceling statement due to statement timeout"), 6, "query 7 timed out"),
        (record("stopped"), 7, "query 7 was stopped"),
        (record("pending"), 9, "`superset-async query results 7` waits for it"),
    ],
)
def test_ends_of_a_query(query: Query, superset: Playing, state: dict[str, str], code: int, message: str) -> None:
    superset.query(state)
    done = query("select 1", "--pending-timeout", "0.1")
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert not superset.asked("POST", STOP)


def test_an_expired_result_and_a_refusing_broker_have_codes_of_their_own(query: Query, superset: Playing) -> None:
    superset.on("GET", RESULTS, refusal(410, "Data could not be retrieved", "RESULTS_BACKEND_ERROR"))
    assert query("results", "7").exit_code == 8
    superset.query(submitted=refusal(500, "Failed to start remote query on a worker.", "ASYNC_WORKERS_ERROR"))
    assert query("select 1").exit_code == 10
    assert query("select 1", "--url", "http://127.0.0.1:1").exit_code == 3
    superset.on("POST", "/api/v1/security/login", Answer({"message": "Not authorized"}, 401))
    assert query("select 1").exit_code == 4


def test_what_is_stopped_is_told_to_programs_too(query: Query, superset: Playing) -> None:
    superset.query(record("running"))
    superset.on("POST", STOP, Answer({"result": "OK"}, before=lambda: superset.query(record("stopped"))))
    done = query("stop", "7", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert {"id": 7, "status": "stopped"}.items() <= json.loads(done.stdout).items()
    again = query("stop", "7")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "query 7: stopped\n")


def test_when_the_time_is_over_the_query_is_stopped_on_the_server(query: Query, superset: Playing) -> None:
    stopped = Answer({"result": "OK"}, before=lambda: superset.query(record("stopped")))
    superset.query(record("running"))
    superset.on("POST", STOP, stopped)
    done = query("select 1", "--timeout", "0.1")
    assert done.exit_code == 6
    assert "query 7 is still running after 0.1 s: --timeout is over\nquery 7 is stopped on the server\n" in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_query_is_stopped_on_the_server(query: Query, superset: Playing, sent: int, code: int) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), sent)

    superset.query(record("running"))
    running = {"id": 7, "result": record("running")}
    superset.on("GET", STATUS, Answer(running), Answer(running, before=interrupt), Answer(running))
    superset.on("POST", STOP, Answer({"result": "OK"}, before=lambda: superset.query(record("stopped"))))
    done = query("select 1")
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.endswith("query 7 is stopped on the server\n")
    (submitted,) = superset.asked("POST", "/api/v1/sqllab/execute/")
    assert superset.asked("POST", STOP)[0].body == {"client_id": submitted.body["client_id"]}


def test_a_query_whose_submission_was_interrupted_is_found_and_stopped(query: Query, superset: Playing) -> None:
    def interrupt() -> None:
        (submitted,) = superset.asked("POST", "/api/v1/sqllab/execute/")
        row = {"id": submitted.body["client_id"], "queryId": 7}
        superset.on("GET", "/api/v1/query/updated_since", Answer({"result": [row]}))
        os.kill(os.getpid(), signal.SIGINT)

    superset.query(record("stopped"), submitted=Answer({"query": {"queryId": 7}}, 202, before=interrupt))
    done = query("select 1")
    assert done.exit_code == 130
    assert done.stderr.endswith("query 7 is stopped on the server\n")
    assert len(superset.asked("POST", STOP)) == 1


def test_ctrl_c_while_waiting_for_the_rows_of_an_earlier_query_leaves_it_alone(query: Query, superset: Playing) -> None:
    running = Answer({"id": 7, "result": record("running")}, before=lambda: os.kill(os.getpid(), signal.SIGINT))
    superset.on("GET", STATUS, running)
    assert query("results", "7").exit_code == 130
    assert not superset.asked("POST", STOP)


def test_status_for_people_and_for_programs(query: Query, superset: Playing) -> None:
    superset.query(record())
    lines = dict(line.split(None, 1) for line in query("status", "7").stdout.splitlines())
    assert lines == {
        "id": "7",
        "status": "success",
        "sql": "select 1 as n, null as x",
        "rows": "1",
        "execution_ms": "73.9",
        "queued": "2026-11-23T05:06:30.606+00:00",
        "started": "2026-11-23T05:06:30.628+00:00",
        "ended": "2026-11-23T05:06:30.702+00:00",
        "error": "-",
    }
    superset.query(record("pending"))
    done = query("status", "7", "--json")
    assert done.exit_code == 0
    assert '"status": "pending"' in done.stdout
    assert '"execution_ms": null' in done.stdout


def test_stop_says_what_became_of_the_query(query: Query, superset: Playing) -> None:
    superset.query(record("running"), record("stopped"))
    done = query("stop", "7")
    assert (done.exit_code, done.stderr) == (0, "query 7: stopped\n")


def test_help_tells_the_exit_codes(query: Query) -> None:
    for arguments in (["--help"], ["run", "--help"]):
        shown = " ".join(query(*arguments).stdout.replace("│", " ").split())
        assert "5 query failed" in shown
        assert "9 no worker took it" in shown


def test_the_documentation_has_every_exit_code() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/client.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE)
    documented = {int(code) for row in rows for code in row.split(",")}
    assert documented == set(map(int, ExitCode))


def test_a_closed_stdout_is_refused_before_anything_is_submitted(superset: Playing, tmp_path: Path) -> None:
    """`superset-async query SQL >&-`: Python has no stdout at all then."""
    env = os.environ | {
        "SUPERSET_ASYNC_STATE": str(tmp_path),
        "SUPERSET_ASYNC_URL": superset.url,
        "SUPERSET_ASYNC_USERNAME": USER,
        "SUPERSET_ASYNC_PASSWORD": PASSWORD,
    }
    command = f"exec {sys.executable} -m ops.cli query 'SELECT 1' --database 3 >&-"
    done = subprocess.run(["sh", "-c", command], env=env, check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode == ExitCode.USAGE
    assert "stdout is closed" in done.stderr and "Traceback" not in done.stderr
    assert superset.asked("POST", "/api/v1/sqllab/execute/") == []
