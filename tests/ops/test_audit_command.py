"""`superset-async audit`: records from files, from stdin, from this machine's platform and from a cluster's pods."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops.cli import app
from runtime.environment import audit_records

NOW = datetime.now(UTC)
Audit = Callable[..., Result]


def record(id: str, hours: float, **about: Any) -> str:
    time = (NOW - timedelta(hours=hours)).isoformat(timespec="milliseconds")
    whole = {"audit": 1, "id": id, "time": time, "outcome": "ok", "process": "web", "host": "h", **about}
    return "".join(line.decode() for line in audit_records.lines(whole))


RECORDS = [
    record("3", 1, action="query.stop", user="ann", query_id="41"),
    record("1", 30, action="login", user="ann", address="10.0.0.7"),
    record("2", 2, action="query.run", user="ann", query_id="41", task_id="sql-41", sql="x" * 900),
    record("4", 0.5, action="login", outcome="refused", user="eve"),
]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    env = {"SUPERSET_ASYNC_STATE": str(tmp_path)}
    return lambda *words, **more: CliRunner(env=env).invoke(app, ["audit", *words], catch_exceptions=False, **more)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "collected.log"
    path.write_text("a line of words\n" + "".join(RECORDS))
    return str(path)


def ids(result: Result) -> list[str]:
    return [each["id"] for each in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["1", "2", "3", "4"]),
        (["--query", "41"], ["2", "3"]),
        (["--user", "ann", "--action", "query"], ["2", "3"]),
        (["--action", "log"], []),
        (["--outcome", "refused"], ["4"]),
        (["--hours", "3"], ["2", "3", "4"]),
    ],
)
def test_records_that_are_asked_for_oldest_first(audit: Audit, file: str, words: list[str], expected: list[str]) -> None:
    result = audit(file, *words, "--json")
    assert (ids(result), result.exit_code) == (expected, 0 if expected else 1)


def test_a_long_text_is_whole_again_and_a_table_has_it_all(audit: Audit, file: str) -> None:
    (run,) = json.loads(audit(file, "--action", "query.run", "--json").stdout)
    assert run["sql"] == "x" * 900
    assert "address=10.0.0.7" in audit(file, "--format", "csv").stdout


def test_stdin_and_this_machines_own(audit: Audit, tmp_path: Path) -> None:
    assert ids(audit("-", "--json", input="".join(RECORDS))) == ["1", "2", "3", "4"]
    nothing = audit()
    assert nothing.exit_code == 2
    assert "no audit trail in" in nothing.stderr
    folder = tmp_path / "local" / "audit"
    folder.mkdir(parents=True)
    (folder / "web.jsonl").write_text(RECORDS[0])
    (folder / "bootstrap.jsonl").write_text(RECORDS[1])
    assert ids(audit("--json")) == ["1", "3"]


def test_of_a_cluster_by_kubectl_alone(audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\nprintf '%s' \"$*\" > {tmp_path}/asked\ncat <<'END'\n{''.join(RECORDS)}\nEND\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ids(audit("--namespace", "team", "--hours", "3", "--json")) == ["2", "3", "4"]
    assert (tmp_path / "asked").read_text() == (
        "--namespace team logs --selector app.kubernetes.io/part-of=superset-async --all-containers --ignore-errors "
        "--tail=-1 --max-log-requests=1000 --since=10800s"
    )
    assert audit("--namespace", "team", "-").exit_code == 2
