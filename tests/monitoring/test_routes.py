"""Alertmanager takes the configuration, sends each severity where it belongs, and finds no secret in it; by amtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring import files, routes, rules
from tests.runtime.stacks import STACKS, topology

AMTOOL = shutil.which("amtool")
needs_amtool = pytest.mark.skipif(not AMTOOL, reason="no amtool on PATH (Debian: prometheus-alertmanager)")
HEARTBEAT = "https://alive.example.com/superset"


def amtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(AMTOOL), *arguments], cwd=folder, check=False, capture_output=True, text=True)


@needs_amtool
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("watchdog", [None, HEARTBEAT])
def test_alertmanager_takes_it(stack: str, watchdog: str | None, tmp_path: Path) -> None:
    files.write(topology(stack), tmp_path, watchdog)
    done = amtool(tmp_path, "check-config", "alertmanager.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 receivers" in done.stdout


@needs_amtool
def test_every_alert_goes_where_its_severity_says(tmp_path: Path) -> None:
    plan = topology("minimal")
    files.write(plan, tmp_path, HEARTBEAT)
    wanted = {"page": "page", "ticket": "ticket", "none": "watchdog"}
    labels = [rule["labels"] for group in rules.groups(plan) for rule in group["rules"] if "alert" in rule]
    for severity, receiver in wanted.items():
        ours = next(found for found in labels if found["severity"] == severity)
        said = [f"{name}={value}" for name, value in ours.items()]
        done = amtool(tmp_path, "config", "routes", "test", "--config.file=alertmanager.yaml", *said)
        assert done.stdout.strip() == receiver, done.stderr
    # Of another stack, on a shared Alertmanager.
    done = amtool(
        tmp_path, "config", "routes", "test", "--config.file=alertmanager.yaml", "namespace=other", "severity=page"
    )
    assert done.stdout.strip() == "nobody"


def test_it_names_files_and_holds_no_secret() -> None:
    text = files.files(topology("minimal"), HEARTBEAT)["alertmanager.yaml"]
    config = yaml.safe_load(text)
    page = next(each for each in config["receivers"] if each["name"] == "page")
    assert page["pagerduty_configs"][0]["routing_key_file"] == f"{routes.SECRETS}/pagerduty-key"
    assert page["slack_configs"][0]["api_url_file"] == f"{routes.SECRETS}/slack-url"
    assert not re.search(r"\b(routing_key|service_key|api_url|credentials):", text)
    assert re.findall(r"https?://\S*", text) == [HEARTBEAT]
