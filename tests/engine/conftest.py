"""The real command-line tool on a project folder of its own, with its state in a file, and a cluster where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pulumi import automation

PROJECT = Path(__file__).resolve().parents[2]
#: Names a cluster that these tests may fill and empty. The user's own KUBECONFIG is never looked at: it may be production.
KUBECONFIG_ENV = "SUPERSET_ASYNC_TEST_KUBECONFIG"
#: Not among the settings of whoever runs this.
PASSPHRASE = "only for tests"


@pytest.fixture(scope="session")
def cli() -> None:
    """Skips where there is no command-line tool."""
    if shutil.which("pulumi") is None:
        pytest.skip("no `pulumi` on PATH: install the Pulumi CLI to run the program in the real engine")


@pytest.fixture(scope="session")
def kubeconfig(cli: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster: the one that the environment names, or one of the project's own; skips where neither can be had."""
    if given := os.environ.get(KUBECONFIG_ENV):
        yield Path(given)
        return
    from tests.cluster.conftest import built
    from tests.cluster.control_plane import ControlPlane
    from tools import build

    programs, definitions = built(build.cluster), built(build.crds)
    plane = ControlPlane(tmp_path_factory.mktemp("cluster"), programs)
    try:
        plane.start()
        plane.simulate_nodes(3)
        plane.kubectl("create", f"--filename={definitions}")
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield plane.kubeconfig()
    finally:
        plane.stop()


#: Makes a stack in a project folder of its own, with the stack file as the project has it, and a kubeconfig or none.
MakeStack = Callable[[str, Path | None], automation.Stack]


@pytest.fixture
def make_stack(cli: None, tmp_path: Path) -> MakeStack:
    """The engine writes into the stack file, so it works on a copy; program and environment are the project's own."""
    shutil.copy(PROJECT / "Pulumi.yaml", tmp_path)
    shutil.copytree(PROJECT / "stacks", tmp_path / "stacks")
    for name in ("infra", ".venv"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / "state").mkdir()
    nowhere = tmp_path / "no-cluster.kubeconfig"
    nowhere.write_text("apiVersion: v1\nkind: Config\n")

    def make(name: str, cluster: Path | None) -> automation.Stack:
        environment = {
            "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # Whatever the machine has: no test may fill or empty a cluster that was not named for it.
            "KUBECONFIG": str(nowhere),
        }
        options = automation.LocalWorkspaceOptions(env_vars=environment)
        stack = automation.create_stack(name, work_dir=str(tmp_path), opts=options)
        if cluster:
            stack.set_config("kubernetes:kubeconfig", automation.ConfigValue(cluster.read_text(), secret=True))
        return stack

    return make


def remove(stack: automation.Stack, namespace: str, cluster: Path) -> None:
    """Take a stack away with its data, which is protected, and its namespace, which a destroy only forgets."""
    run(stack, "state", "unprotect", "--all", "--yes")
    stack.destroy()
    subprocess.run(
        ["kubectl", f"--kubeconfig={cluster}", "delete", "namespace", namespace, "--ignore-not-found"],
        check=True,
        timeout=300,
    )


def run(stack: automation.Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The tool itself, for what the automation API does not offer."""
    workspace = stack.workspace
    return subprocess.run(
        ["pulumi", *arguments, *([] if "--stack" in arguments else ["--stack", stack.name]), "--non-interactive"],
        cwd=workspace.work_dir,
        env={**os.environ, **(workspace.env_vars or {})},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
