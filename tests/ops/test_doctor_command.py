"""`superset-async doctor` and `slow`, against the server that plays Superset."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops import doctor
from ops.cli import app
from tests.client.conftest import PASSWORD, USER, Answer, Playing

ROOT = "/api/v1/superset_async"
FINDING: dict[str, Any] = {
    "id": "queue-unserved",
    "mode": "pending",
    "severity": "critical",
    "what": "no worker listens to queue default",
    "evidence": ["3 messages wait"],
    "fix": "superset-async worker resume default@h",
}
STATEMENT: dict[str, Any] = {
    "statement": "SELECT " + "a, " * 50 + "b FROM t",
    "database": "sales",
    "executions": 3,
    "failed": 1,
    "mean_seconds": 1.234,
    "p95_seconds": 2.0,
    "max_seconds": 2.0,
    "total_seconds": 3.702,
    "rows": 7,
    "users": 2,
    "cost": 0.00012345,
    "slowest": "41",
}
SLOW: dict[str, Any] = {
    "by": "total",
    "hours": 24.0,
    "executions": 3,
    "complete": True,
    "currency": "USD",
    "rows": [STATEMENT],
}
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
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


@pytest.mark.parametrize(
    ("severities", "code"),
    [([], 0), (["warning"], 13), (["warning", "critical"], 14)],
    ids=["healthy", "warning", "critical"],
)
def test_the_worst_finding_is_the_exit_code(command: Command, superset: Playing, severities: list[str], code: int) -> None:
    findings = [FINDING | {"severity": severity} for severity in severities]
    superset.on("GET", f"{ROOT}/doctor", Answer({"result": {"findings": findings}}))
    done = command("doctor", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (code, {"findings": findings})
    said = command("doctor").stdout
    assert said.startswith("nothing is wrong\n" if not findings else f"{severities[0].upper()}  no worker listens")
    assert said.count("  mend: superset-async worker resume default@h") == len(findings)


def test_a_web_tier_that_fails_is_the_finding(command: Command, superset: Playing) -> None:
    superset.on("GET", f"{ROOT}/doctor", Answer({"message": "Fatal error"}, 500))
    done = command("doctor", "--json")
    (found,) = json.loads(done.stdout)["findings"]
    assert (done.exit_code, found["id"]) == (14, "web-unreachable")


def test_who_may_not_ask_is_told_so(command: Command, superset: Playing) -> None:
    superset.on("GET", f"{ROOT}/doctor", Answer({"message": "Forbidden"}, 403))
    assert command("doctor").exit_code == 4


def pod(state: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    status = {"name": "worker", "restartCount": 2, "state": state, "lastState": last}
    return {"metadata": {"name": "worker-1", "namespace": "superset"}, "status": {"containerStatuses": [status]}}


def ended(at: str, reason: str, code: int) -> dict[str, Any]:
    return {"terminated": {"finishedAt": at, "reason": reason, "exitCode": code}}


@pytest.mark.parametrize(
    ("state", "last", "ids"),
    [
        ({"running": {}}, {}, []),
        ({"running": {}}, ended("2026-11-27T11:30:00Z", "OOMKilled", 137), [("pod-oom", "critical")]),
        ({"running": {}}, ended("2026-11-27T11:30:00Z", "Error", 1), [("pod-restarted", "warning")]),
        ({"running": {}}, ended("2026-11-27T09:30:00Z", "OOMKilled", 137), []),
        ({"waiting": {"reason": "ContainerCreating"}}, {}, []),
        ({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, {}, [("pod-waits", "critical")]),
    ],
    ids=["healthy", "out of memory", "restarted", "long ago", "starting", "no image"],
)
def test_what_pods_say(state: dict[str, Any], last: dict[str, Any], ids: list[tuple[str, str]]) -> None:
    found = doctor.of_pods([pod(state, last)], NOW)
    assert [(each["id"], each["severity"]) for each in found] == ids


def test_slow_statements_as_table_and_whole(command: Command, superset: Playing) -> None:
    superset.on("GET", f"{ROOT}/slow", Answer({"result": SLOW}))
    assert json.loads(command("slow", "-f", "json").stdout) == SLOW
    done = command("slow", "--by", "p95", "--hours", "2")
    assert "…" in done.stdout and "b FROM t" not in done.stdout
    assert done.stderr == "3 executions in 2 hours; cost in USD\n"
    assert "b FROM t" in command("slow", "-f", "csv").stdout
