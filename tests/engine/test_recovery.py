"""An `up` whose process is killed, at moments that differ in what it leaves: by the runbook's commands the next `up` goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pulumi import automation

from tests.cluster.control_plane import wait_until
from tests.engine.conftest import PROJECT, MakeStack, remove, run
from topology import stack_file

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
NAMESPACE = "engine-recovery"
COMMAND = Path(sys.executable).parent / "superset-async"
RUNBOOK = PROJECT / "docs" / "runbooks" / "recovery.md"


class Living:
    """One stack on a cluster, and what its objects are."""

    def __init__(self, stack: automation.Stack, cluster: Path) -> None:
        self.stack = stack
        self._cluster = cluster

    def kubectl(self, *arguments: str) -> str:
        return subprocess.run(
            ["kubectl", f"--kubeconfig={self._cluster}", f"--namespace={NAMESPACE}", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def has(self, *names: str) -> bool:
        return all(self.kubectl("get", name, "--ignore-not-found", "--output=name") for name in names)

    def data(self) -> dict[str, str]:
        """The identity of what holds data: namespace, claims, and each value of the Secrets."""
        found = json.loads(self.kubectl("get", "persistentvolumeclaim,secret", "--output=json"))["items"]
        uids = {f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["uid"] for each in found}
        values = {
            f"{each['metadata']['name']}.{key}": value
            for each in found
            for key, value in each.get("data", {}).items()
            if each["kind"] == "Secret"
        }
        return uids | values

    def up_until_killed(self, *seen: str, changed: str = "") -> None:
        """Start an `up` and kill it with -9 as soon as the cluster has `seen` (and its topology says `changed`)."""
        workspace = self.stack.workspace
        process = psutil.Popen(
            ["pulumi", "up", "--stack", self.stack.name, "--yes", "--skip-preview", "--non-interactive"],
            cwd=workspace.work_dir,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def there() -> bool:
            assert process.poll() is None, "the up ended before it was killed"
            if not self.has(f"namespace/{NAMESPACE}", *seen):
                return False
            return not changed or changed in self.kubectl("get", "configmap/superset-topology", "--output=yaml")

        wait_until(there, f"{seen} {changed}", seconds=300, every=0.05)
        family = [process, *process.children(recursive=True)]
        # Its plugins would live on, and wait for whoever asked them: where a machine or a container ends, they go too.
        for each in family:
            each.kill()
        psutil.wait_procs(family, timeout=60)

    def environment(self) -> dict[str, str]:
        workspace = self.stack.workspace
        stacks = {stack_file.STACKS_ENV: str(Path(workspace.work_dir, "stacks"))}
        return {**os.environ, **(workspace.env_vars or {}), **stacks}

    def put_back_a_state_that_was_cut_off(self) -> None:
        """As the runbook says of a state in a folder."""
        stacks = Path(self.stack.workspace.work_dir, "state", ".pulumi", "stacks", "superset-async")
        if "failed to load checkpoint" in run(self.stack, "stack", "export").stderr:
            shutil.copy(stacks / f"{self.stack.name}.json.bak", stacks / f"{self.stack.name}.json")
            self.stack.workspace.env_vars = {
                **(self.stack.workspace.env_vars or {}),
                "PULUMI_K8S_UPSERT_EXISTING_OBJECTS": "true",
            }

    def recover(self) -> str:
        done = subprocess.run(
            [COMMAND, "recover", "--stack", self.stack.name, "--yes"],
            cwd=self.stack.workspace.work_dir,
            env=self.environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def resources(self) -> list[dict[str, Any]]:
        return (self.stack.export_stack().deployment or {}).get("resources") or []


@pytest.fixture
def living(make_stack: MakeStack, kubeconfig: Path) -> Iterator[Living]:
    stack = make_stack("minimal", kubeconfig)
    stack.set_config("superset-async:namespace", automation.ConfigValue(NAMESPACE))
    try:
        yield Living(stack, kubeconfig)
    finally:
        run(stack, "cancel", "--yes")
        remove(stack, NAMESPACE, kubeconfig)


@pytest.mark.parametrize(
    "moment",
    [
        ("configmap/redis-config",),
        ("statefulset/redis", "statefulset/postgres"),
        ("deployment/web",),
    ],
    ids=lambda moment: "-".join(name.partition("/")[2] for name in moment),
)
def test_the_first_up_killed(living: Living, moment: tuple[str, ...]) -> None:
    living.up_until_killed(*moment)
    living.put_back_a_state_that_was_cut_off()
    # What a person meets who knows of no runbook.
    assert "locked" in (again := run(living.stack, "up", "--yes", "--skip-preview")).stdout + again.stderr
    before = living.data()

    living.recover()
    goes_on(living)
    after = living.data()
    assert {name: after.get(name) for name in before} == before


def test_an_up_that_changes_a_living_stack_killed(living: Living) -> None:
    living.stack.up()
    before = living.data()
    living.stack.set_config("superset-async:admin_username", automation.ConfigValue("killed"))
    living.up_until_killed(changed="killed")
    living.put_back_a_state_that_was_cut_off()

    living.recover()
    goes_on(living)
    assert living.data() == before
    assert len(json.loads(living.kubectl("get", "job", "--output=json"))["items"]) == 1


def goes_on(living: Living) -> None:
    """The next `up` ends, one after it changes nothing, and each object of the cluster is in the state once."""
    living.stack.up()
    living.stack.up(expect_no_changes=True)
    living.stack.refresh(expect_no_changes=True)
    ids = [(each["type"], each["id"]) for each in living.resources() if each["type"].startswith("kubernetes:")]
    assert len(ids) == len(set(ids)) > 15


def test_the_runbook_says_these_commands() -> None:
    said = RUNBOOK.read_text()
    assert "make recover STACK=" in said
    assert "pulumi up --stack" in said
