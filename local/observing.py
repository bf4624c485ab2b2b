"""Prometheus and Alertmanager beside the local platform, where it is asked for (`make up OBSERVE=1`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import yaml

from local.binaries import MissingProgramError
from local.processes import MARK, Process
from local.state import StateFolder, write_private
from monitoring import routes, rules, scraping
from topology.model import Topology

#: Debian's packages of both.
PACKAGES = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
NAMES = ("prometheus", "alertmanager")


def program(name: str) -> str:
    """A program on PATH; MissingProgramError with the package that has it."""
    found = shutil.which(name)
    if found is None:
        raise MissingProgramError(
            f"{name} is not on PATH: install it (Debian: apt-get install {PACKAGES[name]}), or start without OBSERVE=1"
        )
    return found


def folder_of(state: StateFolder) -> Path:
    """Where their files and data lie."""
    return state.root / "monitoring"


def processes(topology: Topology, state: StateFolder) -> tuple[Process, ...]:
    """The two processes; MissingProgramError where one is not installed."""
    host, watch, folder = topology.exporter.host, topology.monitoring, folder_of(state)
    mark = {MARK: str(state.root)}
    prometheus = (
        program("prometheus"),
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/prometheus",
        "--storage.tsdb.retention.time=15d",
        f"--web.listen-address={host}:{watch.prometheus_port}",
    )
    alertmanager = (
        program("prometheus-alertmanager"),
        f"--config.file={folder}/alertmanager.yaml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address={host}:{watch.alertmanager_port}",
        # One has no peers.
        "--cluster.listen-address=",
    )
    return tuple(
        Process(name=name, command=command, environment=mark, stop_signal="TERM", stop_wait_seconds=20)
        for name, command in zip(NAMES, (prometheus, alertmanager), strict=True)
    )


def ports(topology: Topology) -> dict[str, tuple[str, int]]:
    """Their ports, each with the key of the stack file that sets it."""
    watch = topology.monitoring
    return {
        "prometheus": ("local.prometheus_port", watch.prometheus_port),
        "alertmanager": ("local.alertmanager_port", watch.alertmanager_port),
    }


def files(topology: Topology, state: StateFolder) -> dict[str, dict[str, Any]]:
    """Content by file name. Alerts are shown, and sent where a person has put the secrets of `routes` into `secrets/`."""
    folder = folder_of(state)
    secrets = folder / "secrets"
    routing = routes.config(topology, str(secrets))
    if not (secrets / routes.SLACK).exists():
        routing["receivers"] = [{"name": receiver["name"]} for receiver in routing["receivers"]]
    return {
        "prometheus.yaml": scraping.config(topology, f"{folder}/rules.yaml"),
        "rules.yaml": rules.spec(topology),
        "alertmanager.yaml": routing,
    }


def write(topology: Topology, state: StateFolder) -> None:
    """Write the files that both read."""
    folder_of(state).mkdir(exist_ok=True, mode=0o700)
    for name, content in files(topology, state).items():
        write_private(folder_of(state) / name, yaml.safe_dump(content, sort_keys=False, width=1000))


def ready(topology: Topology, name: str) -> bool:
    """Whether one of them does its work."""
    _, port = ports(topology)[name]
    try:
        return httpx.get(f"http://{topology.exporter.host}:{port}/-/ready", timeout=5).is_success
    except httpx.HTTPError:
        return False
