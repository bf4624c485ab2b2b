"""The wheel carries all that its commands read, and works from a folder that is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("topology", "runtime", "client", "components", "local", "infra", "policies", "ops")
#: Files of the packages that only the checkout's own tools read.
NOT_IN_THE_WHEEL = {"README.md", "pyrightconfig.json"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files beside its sources."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PROJECT / "requirements", source / "requirements")
    for path in [*PROJECT.glob("*.md"), *PROJECT.glob("LICENSE*"), *PROJECT.glob("NOTICE*"), PROJECT / "pyproject.toml"]:
        shutil.copy(path, source)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(target)]
    done = subprocess.run([*command, str(source)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = target.iterdir()
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it lies where it is installed."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """A folder of an operator's own: nothing but stack files."""
    shutil.copytree(PROJECT / "stacks", tmp_path / "stacks")
    yield tmp_path


def command(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`superset-async` of the installed wheel; the environment's own editable installation comes after it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SUPERSET_ASYNC_")}
    program = [sys.executable, "-c", "from ops.cli import main; main()", *words]
    return subprocess.run(
        program, cwd=folder, env=environment | {"PYTHONPATH": str(site)}, check=False, capture_output=True, text=True
    )


def test_it_has_every_file_of_its_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        str(path.relative_to(PROJECT))
        for name in PACKAGES
        for path in (PROJECT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name not in NOT_IN_THE_WHEEL
    }
    assert carried == files
    assert {"components/scripts/join.sh", "policies/PulumiPolicy.yaml", "runtime/start/recently_written.sh"} <= carried


def test_it_asks_for_what_the_program_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    wanted = {line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")}
    locked = (PROJECT / "requirements/program.in").read_text().splitlines()
    assert wanted == {line for line in locked if line and not line.startswith("#")}
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"] == {
        "superset-async": "ops.cli:main"
    }


def test_it_renders_the_stacks_of_the_working_directory(installed: Path, empty: Path) -> None:
    (empty / "stacks/Pulumi.minimal.yaml").rename(empty / "stacks/Pulumi.ours.yaml")
    done = command(installed, empty, "render", "--stack", "ours")
    assert done.returncode == 0, done.stderr
    manifests = "".join(path.read_text() for path in (empty / "build/ours").glob("*.yaml"))
    assert "initdb --pgdata" in manifests
    unknown = command(installed, empty, "render", "--stack", "theirs")
    assert unknown.returncode == 1
    assert f"no file Pulumi.theirs.yaml in {empty}/stacks" in " ".join(unknown.stderr.split())


def test_it_checks_policies_and_shows_its_help(installed: Path, empty: Path) -> None:
    assert command(installed, empty, "policy", "--stack", "minimal").returncode == 0
    done = command(installed, empty, "--help")
    assert done.returncode == 0
    assert "render" in done.stdout


@pytest.mark.parametrize("name", ["up", "down", "status", "logs", "clean"])
def test_what_needs_a_checkout_says_so(installed: Path, empty: Path, name: str) -> None:
    done = command(installed, empty, name, *(["--yes"] if name == "clean" else []))
    assert done.returncode == 1
    assert f"{name} needs a checkout of superset-async" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (empty / ".state").exists()


def test_a_query_needs_no_checkout(installed: Path, empty: Path) -> None:
    done = command(installed, empty, "query", "status", "1")
    assert "--url" in done.stderr
    assert "Traceback" not in done.stderr
