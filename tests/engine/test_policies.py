"""The real engine runs the same rules: it lets every shipped stack through, and stops what the rules stop without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.rules import BY_ID
from tests.policies import mutations
from topology import stack_file

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = tuple(name for name in stack_file.names() if stack_file.read(name).get("platform") == "kubernetes")
#: What someone else's program adds to the stack: each line breaks a rule that looks at one resource, or at all of them.
FOREIGN = """
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.autoscaling import v2 as autoscaling
from pulumi_kubernetes.core import v1 as core
from infra.program import main
import pulumi
import pulumi_random as random

def edited(args):
    # What a hand edit of two ConfigMaps would be.
    if args.type_ != "kubernetes:core/v1:ConfigMap":
        return None
    if args.name == "redis-broker-config":
        args.props["data"]["redis.conf"] = args.props["data"]["redis.conf"].replace("noeviction", "allkeys-lru")
    if args.name == "superset-topology":
        text = args.props["data"]["topology.json"].replace('"queues": [', '"queues": ["nobody", ', 1)
        args.props["data"]["topology.json"] = text
    return pulumi.ResourceTransformationResult(args.props, args.opts)

pulumi.runtime.register_stack_transformation(edited)
main()
core.ConfigMap("foreign", metadata={"name": "foreign", "namespace": "superset"},
               data={"url": "postgresql://superset:Rather-Long-Pass@db/superset"})
core.Service("public", metadata={"name": "public", "namespace": "superset"}, spec={"type": "LoadBalancer"})
autoscaling.HorizontalPodAutoscaler("second", metadata={"name": "second", "namespace": "superset"}, spec={
    "scaleTargetRef": {"kind": "Deployment", "name": "worker-default", "apiVersion": "apps/v1"}, "maxReplicas": 4})
# A value that is not known in a preview: the rules must neither fail on it nor guess.
later = random.RandomId("later", byte_length=8).hex
core.Service("unknown", metadata={"name": later, "namespace": "superset", "labels": later.apply(lambda text: {text: text})},
             spec={"type": later, "selector": {"app": later}, "ports": later.apply(lambda text: [{"port": len(text)}])})
core.ConfigMap("unknown", metadata={"name": "unknown", "labels": later.apply(lambda text: {text: text})}, data={"key": later})
"""

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(shutil.which("pulumi") is None, reason="the pulumi command-line tool is not on PATH"),
]


def project(folder: Path, stack: str, config: Mapping[str, Any], program: str | None = None) -> Path:
    """A project in `folder` that runs the real program (or `program`) with a stack file of its own."""
    real = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    real["runtime"]["options"]["virtualenv"] = str(ROOT / ".venv")
    real |= {"stackConfigDir": ".", "main": "program"}
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(real), encoding="utf-8")
    (folder / "program").mkdir()
    text = program or (ROOT / "infra/__main__.py").read_text(encoding="utf-8")
    (folder / "program/__main__.py").write_text(text, encoding="utf-8")
    keys = {f"{stack_file.PROJECT_NAME}:{key}": value for key, value in config.items()}
    (folder / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump({"config": keys}), encoding="utf-8")
    (folder / "state").mkdir()
    return folder


def preview(folder: Path, stack: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`pulumi preview` of a project with the policy pack, against a backend of its own."""
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }
    common: dict[str, Any] = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    subprocess.run(["pulumi", "stack", "init", stack], check=True, **common)
    command = ["pulumi", "preview", "--stack", stack, "--non-interactive", "--policy-pack", str(ROOT / "policies"), *options]
    return subprocess.run(command, check=False, **common)


def policies_section(output: str) -> str:
    """What the engine says of the policies."""
    return output.partition("\nPolicies:\n")[2].partition("\nDiagnostics:\n")[0]


def broken(output: str) -> set[str]:
    """The rules that the engine reports."""
    return {name for name in re.findall(r"[a-z0-9-]{5,}", output) if name in BY_ID or name == "policy-exceptions"}


@pytest.mark.parametrize("stack", SHIPPED)
def test_shipped_stack_passes(stack: str, tmp_path: Path) -> None:
    """The engine finds nothing in a shipped stack, with the real program and its unknown values."""
    result = preview(project(tmp_path, stack, mutations.with_digests(stack)), stack)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "superset-async@v1.0.0" in result.stdout
    assert broken(policies_section(result.stdout)) == set(), result.stdout


def test_foreign_and_edited_resources_are_stopped(tmp_path: Path) -> None:
    """What another program adds to the stack, and what somebody edits in ours, is found in a preview."""
    stack = "enterprise"
    result = preview(project(tmp_path, stack, stack_file.read(stack), FOREIGN), stack)
    assert result.returncode != 0
    found = policies_section(result.stdout)
    assert found, result.stdout
    expected = {
        "celery-queue-unheard",
        "network-public-service",
        "pods-labels",
        "redis-broker-evicts",
        "scaling-blind-to-queue",
        "scaling-one-scaler",
        "secrets-in-clear",
    }
    assert broken(found) == expected, found
    assert re.findall(r"\(kubernetes:\S+ (\S+)\)", found) != []
    assert "unknown" not in found, found


def test_configuration_and_exceptions_reach_the_engine(tmp_path: Path) -> None:
    """Options are read (numbers come as floats), an exception excuses one resource, and an expired one stops."""
    excuse = {"rule": "secrets-length", "reason": "an old system takes no longer one", "owner": "team-data"}
    exceptions = [
        {**excuse, "resource": "RandomPassword/superset-admin", "expires": "2999-01-31"},
        # Without quotes the engine takes it for a moment in time.
        {**excuse, "resource": "RandomPassword/superset-jwt", "expires": date(2020, 1, 31)},
    ]
    folder = project(tmp_path, "minimal", {**stack_file.read("minimal"), "policy_exceptions": exceptions})
    options = folder / "policy.json"
    options.write_text(json.dumps({"secrets-length": {"least": 33}}), encoding="utf-8")
    result = preview(folder, "minimal", "--policy-pack-config", str(options))
    assert result.returncode != 0
    assert broken(policies_section(result.stdout)) == {"secrets-length", "policy-exceptions"}, result.stdout
    assert "generates 32 characters" in result.stdout
    assert "RandomPassword/superset-admin" not in result.stdout
    assert "until 2020-01-31" in result.stdout
