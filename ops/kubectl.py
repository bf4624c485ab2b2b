"""What a cluster says of one namespace, asked by kubectl and its kubeconfig. Nothing is changed."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from client.errors import UsageError

#: Seconds that the cluster may take for one answer.
SECONDS = 30


def listed(namespace: str, kinds: str) -> list[dict[str, Any]]:
    """The objects of these kinds (as kubectl names them) in `namespace`; UsageError where that cannot be."""
    command = ["kubectl", "--namespace", namespace, "get", kinds, "--output", "json"]
    return json.loads(_told(command, f"list {kinds} of namespace {namespace}"))["items"]


def logs(namespace: str, selector: str, hours: float | None) -> list[str]:
    """What the pods that `selector` picks have written, as far as their nodes keep it; UsageError where that cannot be."""
    command = ["kubectl", "--namespace", namespace, "logs", "--selector", selector, "--all-containers", "--ignore-errors"]
    command += ["--tail=-1", "--max-log-requests=1000", *([f"--since={hours * 3600:.0f}s"] if hours else [])]
    return _told(command, f"read the logs of namespace {namespace}").splitlines()


def _told(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except FileNotFoundError:
        raise UsageError("--namespace needs kubectl on PATH") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"kubectl did not {what} within {SECONDS} s") from None
    if done.returncode:
        raise UsageError(f"kubectl cannot {what}: {done.stderr.strip()}")
    return done.stdout
