"""One platform for all tests of this folder: a stack file of its own, on free ports, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from local.state import StateFolder
from local.supervision import leftovers
from topology.model import Topology

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).parent / "superset-async")
STACK = "under-test"
#: Short, so that a test can wait for it; long enough for the sample dashboard's charts, all at once on a busy machine.
STATEMENT_TIMEOUT = 15
#: A site whose pages may have dashboards in frames.
PORTAL = "https://portal.acme.example"


@dataclass(frozen=True)
class RunningPlatform:
    """A platform that `up` started; `run` calls the project's command on it."""

    stack: str
    environment: dict[str, str]
    state_dir: Path
    #: What the first `up` printed.
    said: list[str] = field(default_factory=list[str])

    @property
    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", "--quick", "--stack", self.stack, "--json", check=False).stdout)

    @cached_property
    def at_start(self) -> dict[str, Any]:
        """The status right after it was started, for what never changes."""
        return self.status

    @property
    def url(self) -> str:
        return self.at_start["url"]

    @property
    def username(self) -> str:
        return self.at_start["username"]

    @property
    def password_file(self) -> Path:
        return Path(self.at_start["password_file"])

    @property
    def database_id(self) -> int:
        return self.at_start["database_id"]

    @property
    def dataset_id(self) -> int:
        return self.at_start["dataset_id"]

    @property
    def secrets(self) -> dict[str, str]:
        return json.loads((self.state_dir / "secrets.json").read_text())

    @property
    def topology(self) -> Topology:
        """What its processes read."""
        return Topology.model_validate_json((self.state_dir / "topology.json").read_text())

    @property
    def processes(self) -> list[psutil.Process]:
        """All that live, the supervisor included."""
        return leftovers(StateFolder(self.state_dir))

    @property
    def command_lines(self) -> dict[psutil.Process, str]:
        """Its processes that live, each with its arguments, or the title that it has written over them."""
        found: dict[psutil.Process, str] = {}
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                found[process] = " ".join(process.cmdline()).strip()
        return found

    def run(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            cwd=PROJECT,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def write_stack(folder: Path, stack: str, **settings: Any) -> dict[str, str]:
    """Write a stack file for this machine on free ports; returns the environment in which the command finds it."""
    web, redis, postgres, exporter = free_ports(4)
    config = {
        "topology": "minimal",
        "platform": "local",
        "databases": {"examples": {"sample": True}},
        "local": {"web_port": web, "redis_port": redis, "postgres_port": postgres, "exporter_port": exporter},
    } | settings
    stacks = folder / "stacks"
    stacks.mkdir(exist_ok=True)
    text = yaml.safe_dump({"config": {f"superset-async:{key}": value for key, value in config.items()}})
    (stacks / f"Pulumi.{stack}.yaml").write_text(text)
    return os.environ | {"SUPERSET_ASYNC_STACKS": str(stacks), "SUPERSET_ASYNC_STATE": str(folder / "state")}


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    folder = tmp_path_factory.mktemp("platform")
    settings: dict[str, Any] = {"statement_timeout": STATEMENT_TIMEOUT, "superset": {"embedding": {"origins": [PORTAL]}}}
    with up(folder, STACK, write_stack(folder, STACK, **settings)) as running:
        yield running


@contextmanager
def up(folder: Path, stack: str, environment: dict[str, str]) -> Generator[RunningPlatform]:
    """The platform of a stack file that `write_stack` wrote, while it runs."""
    running = RunningPlatform(stack, environment, folder / "state" / stack)
    try:
        running.said.append(running.run("up", "--stack", stack, timeout=600).stdout)
        yield running
    finally:
        running.run("down", "--stack", stack, "--now", check=False)


def headless(*arguments: str, prefs: Mapping[str, object] | None = None) -> webdriver.Chrome:
    """A browser without a window that keeps its network log; with `prefs` of a person's."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1100", *arguments):
        options.add_argument(argument)
    if prefs:
        options.add_experimental_option("prefs", dict(prefs))
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    driver = headless()
    try:
        yield driver
    finally:
        driver.quit()


#: Of a test with a browser.
BROWSER = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="no chromium and chromedriver on PATH (Debian: chromium, chromium-driver)",
)
