"""`superset-async size`: from a file or executions to a stack file on disk, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ops.cli import app
from ops.size import COLUMNS, EXAMPLE, SizeError
from sizing.load import LoadError
from topology import stack_file
from topology.plan import plan

runner = CliRunner()


@pytest.fixture(autouse=True)
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    return tmp_path


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.yaml"
    path.write_text(EXAMPLE)
    return path


def test_the_example_is_a_load() -> None:
    printed = runner.invoke(app, ["size", "--example"]).stdout
    assert yaml.safe_load(printed)["users"] == 200


def test_what_is_written_is_a_stack_that_the_plan_accepts(load: Path, stacks: Path) -> None:
    done = runner.invoke(app, ["size", "--load", str(load), "--write", "sized"])
    assert done.exit_code == 0, done.output
    planned = plan("sized", stack_file.read("sized"))
    assert planned.name == "multi-tenant"
    assert {tenant.id for tenant in planned.tenants} == {"finance"}


def test_a_file_that_exists_is_not_overwritten(load: Path, stacks: Path) -> None:
    (stacks / "Pulumi.mine.yaml").write_text("mine")
    done = runner.invoke(app, ["size", "--load", str(load), "--write", "mine"])
    assert isinstance(done.exception, SizeError)
    assert (stacks / "Pulumi.mine.yaml").read_text() == "mine"


def test_json_has_sizes_limits_and_growth(load: Path) -> None:
    found = json.loads(runner.invoke(app, ["size", "--load", str(load), "--json", "--grow", "2,10"]).stdout)
    assert [step["factor"] for step in found["growth"]] == [2.0, 10.0]
    assert found["pools"][0]["name"] == "default"
    assert [limit["times"] for limit in found["limits"]] == sorted(limit["times"] for limit in found["limits"])


def test_executions_in_a_csv_are_a_load(tmp_path: Path) -> None:
    rows = [
        f"sql,,u{number % 7},{36000 + number * 10},{36000 + number * 10 + 1},{36000 + number * 10 + 3}"
        for number in range(300)
    ]
    path = tmp_path / "executions.csv"
    path.write_text("\n".join([",".join(COLUMNS), *rows]))
    found = json.loads(runner.invoke(app, ["size", "--from", str(path), "--json"]).stdout)
    assert found["load"]["users"] == 7
    (query,) = found["load"]["classes"]
    # One hour holds 300 × 10 seconds of them whole.
    assert (query["per_hour"], query["seconds"], query["variation"]) == (300, 2.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "says", "kind"),
    [
        ([], "give a load", SizeError),
        (["--load", "/nowhere.yaml"], "/nowhere.yaml: cannot be read", LoadError),
        (["--from", "nowhere"], "no platform of that stack", SizeError),
        (["--load", "LOAD", "--topology", "huge"], "must be one of minimal", SizeError),
        (["--load", "LOAD", "--grow", "0"], "numbers above 0", SizeError),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], says: str, kind: type[Exception], load: Path) -> None:
    done = runner.invoke(app, ["size", *(str(load) if part == "LOAD" else part for part in arguments)])
    assert isinstance(done.exception, kind)
    assert says in str(done.exception)


def test_other_columns_are_refused_with_the_right_ones(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    done = runner.invoke(app, ["size", "--from", str(path)])
    assert isinstance(done.exception, LoadError)
    assert "kind, tenant, username" in str(done.exception)
