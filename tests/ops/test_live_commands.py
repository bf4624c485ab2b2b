"""`superset-async queue`, `worker` and `query list`, against the server that plays Superset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops.cli import app
from ops.query import placed
from tests.client.conftest import PASSWORD, USER, Answer, Playing

ROOT = "/api/v1/superset_async"
QUEUE: dict[str, Any] = {
    "queue": "default",
    "waiting": 2,
    "oldest_seconds": 1.5,
    "in_flight": None,
    "workers": 1,
    "slots": 2,
    "bound": 500,
    "expected_wait_seconds": 4.0,
    "waiting_users": {"ada": 2},
    "problem": None,
}
WORKER: dict[str, Any] = {
    "worker": "default@h",
    "state": "draining",
    "slots": 2,
    "reserved": 1,
    "queues": [],
    "queries": ["7"],
}
AWAY = {"message": "The broker's Redis does not answer", "error_type": "ASYNC_WORKERS_ERROR", "level": "error", "extra": {}}
Command = Callable[..., Result]


@pytest.fixture
def command(superset: Playing, tmp_path: Path) -> Command:
    env = {
        "SUPERSET_ASYNC_STATE": str(tmp_path / "no-state"),
        "SUPERSET_ASYNC_URL": superset.url,
        "SUPERSET_ASYNC_USERNAME": USER,
        "SUPERSET_ASYNC_PASSWORD": PASSWORD,
    }
    return lambda *arguments: CliRunner(env=env).invoke(app, list(arguments), catch_exceptions=False)


def test_queues_as_table_and_json_and_a_problem_as_exit_code(command: Command, superset: Playing) -> None:
    stuck = QUEUE | {"workers": 0, "problem": "no worker listens to it"}
    superset.on(
        "GET", f"{ROOT}/queues", Answer({"result": [QUEUE]}), Answer({"result": [QUEUE]}), Answer({"result": [stuck]})
    )
    done = command("queue")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "ada 2" in done.stdout
    assert json.loads(command("queue", "-f", "json").stdout) == [QUEUE]
    done = command("queue")
    assert (done.exit_code, done.stderr) == (12, "default: no worker listens to it\n")


def test_a_worker_is_drained_when_it_has_ended_what_it_has(command: Command, superset: Playing) -> None:
    superset.on("POST", f"{ROOT}/workers/default@h/drain", Answer({"result": "default@h"}))
    superset.on("GET", f"{ROOT}/workers", Answer({"result": [WORKER]}), Answer({"result": [WORKER | {"state": "drained"}]}))
    done = command("worker", "drain", "default@h", "--wait")
    assert (done.exit_code, done.stderr) == (0, "default@h: drained\n")
    superset.on("GET", f"{ROOT}/workers", Answer({"result": []}))
    done = command("worker", "drain", "default@h", "--wait")
    assert done.exit_code == 1
    assert "is gone" in done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (Answer({"message": "no worker x; there are: default@h"}, 404), 2, "no worker x; there are: default@h"),
        (Answer({"message": "Not found"}, 404), 2, "is its web tier one of this project's?"),
        (Answer({"errors": [AWAY]}, 503), 1, "error: The broker's Redis does not answer\n"),
        (Answer({"message": "Forbidden"}, 403), 4, "Forbidden"),
    ],
    ids=["unknown", "stock", "away", "forbidden"],
)
def test_what_cannot_be_asked_is_said(command: Command, superset: Playing, answer: Answer, code: int, says: str) -> None:
    superset.on("POST", f"{ROOT}/workers/x/resume", answer)
    done = command("worker", "resume", "x")
    assert done.exit_code == code
    assert says in done.stderr


def test_nothing_open_is_an_empty_list(command: Command, superset: Playing) -> None:
    superset.on("GET", f"{ROOT}/queries", Answer({"result": []}))
    assert command("query", "list", "-f", "json").stdout == "[]\n"
    assert command("query", "list").stdout == ""


def test_a_place_in_words() -> None:
    assert placed({}) == ""
    known = {"queue": "acme", "before": 3, "expected_wait_seconds": 12.4}
    assert placed(known) == ", 3 before it in queue acme, about 12 s to wait"
    assert placed(known | {"expected_wait_seconds": None}) == ", 3 before it in queue acme"
