"""The control plane, shared by every test that needs one, and stacks rendered as their users render them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane, Manifest, read_manifests
from tests.cluster.real_node import RealNode, why_not
from tests.plain import without_tls
from tools import build
from topology import stack_file

COMMAND = str(Path(sys.executable).parent / "superset-async")
#: Figures of each stack that was applied, for the end of the run.
FIGURES: dict[str, dict[str, object]] = {}


def built(what: Callable[[], Path]) -> Path:
    """What tools/build.py makes; the test is skipped where there is no Go, and fails where a build fails."""
    try:
        return what()
    except build.GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with three simulated nodes, resource metrics, and the custom resources that stacks use."""
    programs, definitions = built(build.cluster), built(build.crds)
    running = ControlPlane(tmp_path_factory.mktemp("cluster"), programs)
    try:
        running.start()
        running.simulate_nodes(3)
        running.serve_metrics()
        running.kubectl("create", f"--filename={definitions}")
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """A control plane of its own with a real node."""
    if reason := why_not():
        pytest.skip(reason)
    cluster = ControlPlane(tmp_path_factory.mktemp("real"), built(build.cluster))
    running = RealNode(cluster)
    # Also a run that is told to end leaves nothing behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        running.start()
        yield running
    finally:
        running.stop()
        cluster.stop()


@dataclass(frozen=True)
class Rendered:
    """A stack as `superset-async render` wrote it, Secrets with values included."""

    namespace: str
    #: In the order in which they are applied.
    files: tuple[Path, ...]
    seconds: float

    @property
    def manifests(self) -> list[Manifest]:
        return read_manifests(self.files)


@dataclass(frozen=True)
class Stacks:
    """Renders stacks in `folder`, each in a namespace of its own."""

    folder: Path

    def secrets_file(self, namespace: str) -> Path:
        """Where renders for `namespace` keep its Secrets: values that are there stay."""
        return self.folder / "secrets" / f"{namespace}.yaml"

    def render(self, namespace: str, stack: str, changes: Mapping[str, Any] | None = None) -> Rendered:
        """Render the project's `stack` with `changes` to its keys; secrets are those of earlier renders for `namespace`."""
        config = merged(without_tls(stack_file.read(stack)), {"namespace": namespace, **(changes or {})})
        stacks, secrets = self.folder / "stacks", self.secrets_file(namespace)
        stacks.mkdir(exist_ok=True)
        text = yaml.safe_dump({"config": {f"{stack_file.PROJECT_NAME}:{key}": value for key, value in config.items()}})
        (stacks / f"Pulumi.{stack}.yaml").write_text(text)
        output = self.folder / "rendered" / namespace
        started = time.monotonic()
        done = subprocess.run(
            [COMMAND, "render", "--stack", stack, "--output", output, "--secrets-file", secrets],
            env=os.environ | {stack_file.STACKS_ENV: str(stacks)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        assert done.returncode == 0, f"{stack} does not render:\n{done.stdout}{done.stderr}"
        # What the namespace holds comes after it, and before that nothing does.
        first, *others = sorted(output.glob("*.yaml"))
        return Rendered(namespace, (first, secrets, *others), seconds)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, mappings key by key."""
    return {
        **base,
        **{key: merged(base.get(key) or {}, value) if isinstance(value, dict) else value for key, value in changes.items()},
    }


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Stacks:
    return Stacks(tmp_path_factory.mktemp("stacks"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What each stack is made of and how long it took, as a table."""
    if not FIGURES:
        return
    terminalreporter.section("stacks on a real API server")
    columns = ("objects", "render", "apply", "at rest", "notes")
    rows = [["stack", *columns], *([name, *(str(row.get(each, "")) for each in columns)] for name, row in FIGURES.items())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
