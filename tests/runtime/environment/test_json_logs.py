"""The one format of log lines: what a line is about, and what no line has."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local import binaries
from runtime.environment import json_logs
from tests.runtime.conftest import PROJECT
from tests.waiting import free_port, until

PASSWORD = "correct-horse-battery"
STATEMENT = "SELECT name FROM customers\nWHERE card = '4111'"
LOGGER = logging.getLogger("test")


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    json_logs.forget()
    yield
    json_logs.forget()


def line(
    message: str, *arguments: object, name: str = "test", show_sql: bool = False, exc_info: Any = None
) -> dict[str, Any]:
    record = logging.LogRecord(name, logging.INFO, "", 0, message, arguments, exc_info)
    return json.loads(json_logs.Formatter([PASSWORD, "short"], show_sql=show_sql).format(record))


def test_a_line_says_what_it_is_about() -> None:
    json_logs.about(query_id="7", task_id="t-1", user="ann", tenant="")
    said = line("it runs")
    assert list(said)[:4] == ["time", "level", "logger", "message"]
    assert {name: said.get(name) for name in json_logs.FIELDS} == {
        "query_id": "7",
        "task_id": "t-1",
        "tenant": None,
        "user": "ann",
        "duration": None,
        "trace_id": None,
    }
    json_logs.forget()
    assert "query_id" not in line("it has ended")


def test_celerys_lines_have_the_task_and_its_seconds() -> None:
    arguments = {"name": "sql_lab.get_sql_results", "id": "t-1", "runtime": 1.23456, "return_value": None}
    said = line("Task %(name)s[%(id)s] succeeded in %(runtime)ss", arguments, name="celery.app.trace")
    assert (said["task_id"], said["duration"]) == ("t-1", 1.235)


def test_an_access_line_has_who_and_how_long_and_no_query_string() -> None:
    atoms = {
        "m": "GET",
        "U": "/api/v1/query/7",
        "q": "secret=1",
        "s": "200",
        "D": 12345,
        "h": "10.0.0.1",
        f"{{{json_logs.USER}}}e": "ann",
        f"{{{json_logs.QUERY}}}e": "7",
    }
    said = line("%(m)s %(U)s %(s)s", atoms, name="gunicorn.access")
    assert said["message"] == "GET /api/v1/query/7 200"
    assert (said["user"], said["query_id"], said["duration"], said["status"]) == ("ann", "7", 0.012, 200)
    assert "secret=1" not in json.dumps(said)


@pytest.mark.parametrize(
    "message",
    [
        f"(psycopg2.errors.Oops) no\nLINE 1: {STATEMENT.splitlines()[0]}\n               ^\n[SQL: {STATEMENT}]\n(Background: x)",
        f"failed: {STATEMENT}",
        f"failed near {STATEMENT.splitlines()[1]}",
        f"[parameters: {{'card': '4111'}}]\n[SQL: {STATEMENT}]",
    ],
)
def test_no_line_has_a_statement_unless_it_is_asked_for(message: str) -> None:
    json_logs.about(statement=STATEMENT)
    assert "4111" not in json.dumps(line(message))
    assert "customers" not in json.dumps(line(message))
    assert "4111" in json.dumps(line(message, show_sql=True)) or "LINE" in message


def test_supersets_line_of_a_chart_that_failed_has_no_statement() -> None:
    said = line("Query %s on schema %s failed", STATEMENT, "public")
    assert said["message"] == f"Query {json_logs.HIDDEN_SQL} on schema public failed"


def test_no_line_and_no_traceback_has_a_secret() -> None:
    error = ValueError(f"cannot connect to redis://broker:{PASSWORD}@redis")
    said = line("url %s", f"redis://x:{PASSWORD}@y", exc_info=(ValueError, error, None))
    assert PASSWORD not in json.dumps(said)
    assert json_logs.HIDDEN_SECRET in said["exc_info"]
    assert line("a short word")["message"] == "a short word"


@pytest.mark.superset
def test_gunicorn_writes_nothing_else(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "web.log"
    module = "tests.runtime.environment.gunicorn_process"
    command = [
        *(str(binaries.superset_python()), "-m", "gunicorn", f"--bind=127.0.0.1:{port}"),
        *(f"--config=python:{module}", f"{module}:application"),
    ]

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/a/b?secret=1").is_success
        except httpx.HTTPError:
            return False

    with log.open("w") as output, subprocess.Popen(command, cwd=PROJECT, stdout=output, stderr=output) as process:
        try:
            until(answers, 60, "gunicorn answers")
            until(lambda: "GET /a/b" in log.read_text(), 60, "it has logged that")
        finally:
            process.terminate()
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    (access,) = [each for each in lines if each["logger"] == "gunicorn.access"]
    assert (access["message"], access["user"], access["query_id"]) == ("GET /a/b 200", "ann", "7")
    assert "duration" in access
    assert "secret" not in log.read_text()


@pytest.mark.superset
def test_the_line_of_a_killed_child_is_one_of_the_format() -> None:
    """billiard's logger, by which a worker says so."""
    script = (
        "from runtime.environment import json_logs; json_logs.install()\n"
        "from celery.utils.log import reset_multiprocessing_logger; reset_multiprocessing_logger()\n"
        "from billiard import util; util.get_logger(); util.error('Process %r exited with %r', 'ForkPoolWorker-3', 'signal 9')"
    )
    done = subprocess.run(
        [binaries.superset_python(), "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT, timeout=120
    )
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert found["message"] == "Process 'ForkPoolWorker-3' exited with 'signal 9'"
