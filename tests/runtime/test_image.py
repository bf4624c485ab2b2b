"""The image's recipe: what it copies is there, and image.sh gives it to whichever builder the machine has."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest

from components.superset import APP, SCRATCH, USER
from tests.runtime.stacks import topology

PROJECT = Path(__file__).resolve().parents[2]
DOCKERFILE = (PROJECT / "runtime/Dockerfile").read_text()
DIGEST = f"sha256:{'5' * 64}"
#: Stands for a builder: prints how it was called, and what is in the context, its last argument.
STUB = '#!/bin/sh\necho "called: $0 $*"\nfor last; do :; done\ncd "$last" && find . -type f | sort\n'


def build(tmp_path: Path, *builders: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run image.sh on a PATH with the ordinary tools and only these builders."""
    tools = tmp_path / "bin"
    tools.mkdir(parents=True)
    for tool in ("sh", "cat", "dirname", "mktemp", "rm", "mkdir", "cp", "find", "chmod", "sort"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    for builder in builders:
        (tools / builder).write_text(STUB)
        (tools / builder).chmod(0o755)
    command = ["/bin/sh", str(PROJECT / "runtime/image.sh")]
    return subprocess.run(command, env={"PATH": str(tools), **changes}, check=False, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("installed", "taken"),
    [
        (("docker", "podman", "buildah"), "docker"),
        (("podman", "buildah"), "podman"),
        (("buildah",), "buildah"),
    ],
)
def test_the_stacks_image_is_built_from_what_the_image_carries_and_no_more(
    tmp_path: Path, installed: tuple[str, ...], taken: str
) -> None:
    done = build(tmp_path, *installed, BASE="mirror.example/python:3.11")
    assert done.returncode == 0, done.stderr
    called = next(line for line in done.stdout.splitlines() if line.startswith("called: "))
    assert re.search(rf"/{taken} build --file \S+/runtime/Dockerfile --tag (\S+) ", called)
    assert f"--tag {topology('local').images.superset} " in called
    assert "--build-arg BASE=mirror.example/python:3.11" in called
    files = {line for line in done.stdout.splitlines() if line.startswith("./")}
    assert {
        "./requirements/superset.txt",
        "./runtime/start/superset_config.py",
        "./topology/model.py",
        "./runtime/config/tasks.py",
    } <= files
    assert {file.split("/")[1] for file in files} == {"requirements", "runtime", "topology"}
    assert not any("__pycache__" in file for file in files)
    # Everything that the recipe takes from the context is in it.
    sources = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.MULTILINE)
    assert sources == ["requirements/superset.txt", "requirements/ldap.txt", "topology", "runtime"]
    for source in sources:
        assert any(file.startswith(f"./{source}") for file in files)


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_a_pushed_image_is_named_with_its_digest(tmp_path: Path, builder: str) -> None:
    """Docker tells it of the image, the others write it to a file."""
    program = tmp_path / builder
    program.write_text(
        f'#!/bin/sh\ncase "$1 $2" in\n"push --digestfile") echo {DIGEST} >"$3" ;;\n'
        f"inspect*) echo registry.example.com/superset@{DIGEST} ;;\nesac\n"
    )
    program.chmod(0o755)
    image = "registry.example.com/superset:6.1.0-1"
    done = build(tmp_path, BUILDER=str(program), IMAGE=image, PUSH="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"images.superset: {image}@{DIGEST}"
    assert "@" not in build(tmp_path / "again", BUILDER=str(program), IMAGE=image).stdout


def test_without_a_builder_it_says_what_is_needed(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 1
    assert "needs docker, podman or buildah" in done.stderr


def test_a_builder_that_fails_fails_the_target(tmp_path: Path) -> None:
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nexit 7\n")
    failing.chmod(0o755)
    done = build(tmp_path, BUILDER=str(failing), IMAGE="x:1")
    assert done.returncode == 7
    assert "built" not in done.stdout


def test_the_recipe_agrees_with_the_pods_that_run_it() -> None:
    assert f"USER {USER}:{USER}" in DOCKERFILE
    assert f"--uid {USER} --gid" in DOCKERFILE
    assert f"PYTHONPATH={APP} " in DOCKERFILE
    assert f"HOME={SCRATCH} " in DOCKERFILE
    assert f"COPY runtime {APP}/runtime" in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    assert (PROJECT / "requirements/superset.txt").read_text().count("--hash=sha256:") > 300
    assert (PROJECT / "runtime/image.sh").stat().st_mode & stat.S_IXUSR
