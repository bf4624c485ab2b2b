"""Every contract on the rooms' imports fails when it is broken: a forbidden import is planted in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.thorough

PROJECT = Path(__file__).resolve().parent.parent
LINTER: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS: list[str] = [contract["name"] for contract in LINTER["contracts"]]

#: An import inside of a function, as one hides best; and one for types alone, which says as much about what leans on what.
IN_FUNCTION = "\n\ndef _planted() -> None:\n    {}\n"
FOR_TYPES = "\n\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {}\n"

#: Contract, the file in which it is broken, the import, and how that stands there.
PLANTS = [
    ("Rooms: arrows run downwards only", "topology/quantities.py", "import runtime.config", IN_FUNCTION),
    ("Rooms: arrows run downwards only", "components/web.py", "import local.platform", IN_FUNCTION),
    ("Rooms: arrows run downwards only", "client/states.py", "import ops.cli", FOR_TYPES),
    (
        "Rooms of runtime: arrows run downwards only",
        "runtime/broker/messages.py",
        "import runtime.queries.reaper",
        IN_FUNCTION,
    ),
    (
        "Rooms of runtime: arrows run downwards only",
        "runtime/queries/reaper.py",
        "import runtime.superset.charts",
        FOR_TYPES,
    ),
    ("No circle in a room", "client/states.py", "import client.superset_client", IN_FUNCTION),
    ("Superset is imported in one room", "runtime/queries/reaper.py", "from superset.extensions import db", IN_FUNCTION),
    ("Superset is imported in one room", "bench/in_superset.py", "from superset.app import create_app", IN_FUNCTION),
    ("Superset is imported in one room", "runtime/start/init.py", "from superset.app import SupersetApp", FOR_TYPES),
    ("kombu is imported in one room", "runtime/superset/execution.py", "import kombu.transport.redis", IN_FUNCTION),
    ("kombu is imported in one room", "ops/cli.py", "from kombu import Connection", IN_FUNCTION),
    ("Rooms: arrows run downwards only", "sizing/load.py", "import runtime.queries.executions", IN_FUNCTION),
    ("The pure core has no clients", "topology/plan.py", "from redis import Redis", IN_FUNCTION),
    ("The pure core has no clients", "sizing/queueing.py", "import subprocess", IN_FUNCTION),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own packages, with nothing planted."""
    folder = tmp_path_factory.mktemp("rooms")
    shutil.copy(PROJECT / "pyproject.toml", folder)
    for package in LINTER["root_packages"]:
        shutil.copytree(PROJECT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def broken(folder: Path) -> list[str]:
    """The contracts that the project in `folder` breaks, as `make lint` says."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True, text=True)
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)(?: \(\d+ ignored imports?\))?$", done.stdout, flags=re.MULTILINE))
    assert set(verdicts) == set(CONTRACTS), f"{done.stdout}\n{done.stderr}"
    found = [name for name, verdict in verdicts.items() if verdict == "BROKEN"]
    assert (done.returncode != 0) is bool(found), done.stdout
    return found


def test_each_contract_is_kept_and_has_a_plant(copy: Path) -> None:
    assert broken(copy) == []
    assert {contract for contract, *_ in PLANTS} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "file", "statement", "form"), PLANTS)
def test_a_planted_import_breaks_its_contract(copy: Path, contract: str, file: str, statement: str, form: str) -> None:
    path = copy / file
    shipped = path.read_text(encoding="utf-8")
    path.write_text(shipped + form.format(statement), encoding="utf-8")
    try:
        assert contract in broken(copy)
    finally:
        path.write_text(shipped, encoding="utf-8")


#: Files that load modules by a name that is data, and what that name is.
LOADED_BY_NAME = {
    "bench/chaos.py": "a scenario, as the command line has it",
    "runtime/config/objects.py": "a function that the configuration names as `module:name`",
    "tests/infra/test_program.py": "a component's class, as its type token names it",
    "tests/runtime/config/probe_process.py": "what Celery's setting `imports` has",
}


def test_no_import_hides_in_a_string() -> None:
    literal = re.compile(r"\b(import_module|__import__)\(\s*f?[\"'][^{\"']*[\"']")
    loading = re.compile(r"\b(import_module|__import__)\((?!\))")
    hidden: list[str] = []
    by_name: set[str] = set()
    for package in (*LINTER["root_packages"], "tests", "tools"):
        for path in (PROJECT / package).rglob("*.py"):
            text, name = path.read_text(encoding="utf-8"), str(path.relative_to(PROJECT))
            if path == Path(__file__):
                continue
            hidden += [f"{name}: {found[0]}" for found in literal.finditer(text)]
            if loading.search(text):
                by_name.add(name)
    assert hidden == []
    assert by_name == set(LOADED_BY_NAME)
