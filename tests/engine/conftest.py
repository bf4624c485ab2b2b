"""The real command-line tool on a project folder of its own, with its state in a file, and a cluster where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi import automation

from topology import stack_file
from topology.presets import merge

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


@pytest.fixture(scope="session")
def make_stacks(cli: None) -> Callable[[Path], MakeStack]:
    """A `MakeStack` for a folder, where the engine writes into a copy of the stack file; the program is the project's own."""

    def within(folder: Path) -> MakeStack:
        shutil.copy(PROJECT / "Pulumi.yaml", folder)
        shutil.copytree(PROJECT / "stacks", folder / "stacks")
        for name in ("infra", ".venv"):
            (folder / name).symlink_to(PROJECT / name)
        (folder / "state").mkdir()
        nowhere = folder / "no-cluster.kubeconfig"
        nowhere.write_text("apiVersion: v1\nkind: Config\n")

        def make(name: str, cluster: Path | None) -> automation.Stack:
            environment = {
                "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
                "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
                "PULUMI_SKIP_UPDATE_CHECK": "true",
                # Whatever the machine has: no test may fill or empty a cluster that was not named for it.
                "KUBECONFIG": str(nowhere),
            }
            options = automation.LocalWorkspaceOptions(env_vars=environment)
            stack = automation.create_stack(name, work_dir=str(folder), opts=options)
            if cluster:
                stack.set_config("kubernetes:kubeconfig", automation.ConfigValue(cluster.read_text(), secret=True))
            return stack

        return make

    return within


@pytest.fixture
def make_stack(make_stacks: Callable[[Path], MakeStack], tmp_path: Path) -> MakeStack:
    """A `MakeStack` in the test's own folder."""
    return make_stacks(tmp_path)


def configure(stack: automation.Stack, changes: Mapping[str, Any]) -> None:
    """Write `changes` to keys of the project over what the stack's file says, mappings key by key; the engine's own keys stay."""
    file = Path(stack.workspace.work_dir, "stacks", f"Pulumi.{stack.name}.yaml")
    content = yaml.safe_load(file.read_text())
    prefix = f"{stack_file.PROJECT_NAME}:"
    content["config"] = merge(content["config"], {f"{prefix}{key}": value for key, value in changes.items()})
    file.write_text(yaml.safe_dump(content))


def remove(stack: automation.Stack, namespace: str, cluster: Path) -> None:
    """Take a stack away with its data, which is protected, and its namespace, which a destroy only forgets."""
    # Of a test that was ended in the middle of an update.
    run(stack, "cancel", "--yes")
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
