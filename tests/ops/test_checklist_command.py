"""`superset-async checklist`: lines of the web tier, of a Prometheus and of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monitoring import alerts
from ops import checklist
from ops.cli import app
from tests.client.conftest import PASSWORD, USER, Answer, Playing
from tests.runtime.stacks import topology

PLAN = topology("minimal")
MET = {
    "id": "load",
    "line": "it has carried 50 users at once",
    "state": "met",
    "evidence": "50 users, 2026-11-01",
    "get": "",
}
DUMP: dict[str, Any] = {
    "kind": "CronJob",
    "metadata": {"name": "postgres-backup"},
    "spec": {},
    "status": {"lastSuccessfulTime": "2026-11-27T03:00:00Z"},
}
RESTORE: dict[str, Any] = {
    "kind": "Job",
    "metadata": {"name": "postgres-backup-restore-1"},
    "status": {"succeeded": 1, "completionTime": "2026-11-20T03:00:00Z"},
}


def rules(*names: str, health: str = "ok") -> dict[str, Any]:
    loaded = [
        {"name": name, "type": "alerting", "health": health, "lastEvaluation": "2026-11-27T12:00:00Z"} for name in names
    ]
    return {"groups": [{"rules": loaded}]}


ALL = list(alerts.texts(PLAN))
MANAGERS = {"activeAlertmanagers": [{"url": "http://alerts:9093"}]}


def test_lines_and_exit_code(superset: Playing, tmp_path: Path) -> None:
    superset.on("GET", "/api/v1/superset_async/checklist", Answer({"result": [MET]}))
    env = {
        "SUPERSET_ASYNC_STATE": str(tmp_path / "no-state"),
        "SUPERSET_ASYNC_URL": superset.url,
        "SUPERSET_ASYNC_USERNAME": USER,
        "SUPERSET_ASYNC_PASSWORD": PASSWORD,
    }

    def run(*arguments: str) -> Any:
        return CliRunner(env=env).invoke(app, ["checklist", "--users", "50", *arguments], catch_exceptions=False)

    done = run("--json")
    assert done.exit_code == 13
    lines = json.loads(done.stdout)["lines"]
    assert [line["id"] for line in lines] == ["load", "monitoring", "backups", "drill"]
    said = run().stdout
    assert said.startswith("[x] it has carried 50 users at once  [load]\n      seen: 50 users, 2026-11-01\n[ ] ")
    assert said.count("      get it: ") == 3


@pytest.mark.parametrize(
    ("loaded", "managers", "state", "says"),
    [
        (rules(*ALL), MANAGERS, "met", f"{len(ALL)} alerts loaded"),
        (rules(*ALL[1:]), MANAGERS, "missing", f"not loaded: {ALL[0]}"),
        (rules(*ALL, health="err"), MANAGERS, "missing", "rules fail: "),
        (rules(*ALL), {"activeAlertmanagers": []}, "missing", "no Alertmanager is told"),
        (None, None, "missing", "does not answer"),
    ],
    ids=["all", "one missing", "failing", "nobody told", "away"],
)
def test_monitoring(loaded: dict[str, Any] | None, managers: dict[str, Any] | None, state: str, says: str) -> None:
    line = checklist.monitored("http://prometheus", loaded, managers, PLAN)
    assert line["state"] == state
    assert says in line["evidence"] + line["get"]


def test_alerts_of_a_stack_that_is_not_known_here_are_known_by_their_names() -> None:
    assert [name for name in ALL if not name.startswith(checklist.OURS)] == ["Watchdog"]
    assert checklist.monitored("http://prometheus", rules(*ALL), MANAGERS, None)["state"] == "met"
    assert checklist.monitored("http://prometheus", rules("NodeDown"), MANAGERS, None)["state"] == "missing"


@pytest.mark.parametrize(
    ("objects", "state", "says"),
    [
        ([DUMP, RESTORE], "met", "last dump 2026-11-27T03:00:00Z, last put back 2026-11-20T03:00:00Z"),
        ([DUMP], "missing", "kubectl create job"),
        ([DUMP | {"status": {}}, RESTORE], "missing", "superset-async:postgres: {backup: …}"),
        (None, "missing", "--namespace NS"),
    ],
    ids=["both", "never put back", "never dumped", "not asked"],
)
def test_backups(objects: list[dict[str, Any]] | None, state: str, says: str) -> None:
    line = checklist.dumped(objects)
    assert line["state"] == state
    assert says in line["evidence"] + line["get"]
