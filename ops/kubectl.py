"""What a cluster says of one namespace, asked by kubectl and its kubeconfig. Nothing is changed."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from client.errors import UsageError

#: Seconds that the cluster may take for one list.
SECONDS = 30


def listed(namespace: str, kinds: str) -> list[dict[str, Any]]:
    """The objects of these kinds (as kubectl names them) in `namespace`; UsageError where that cannot be."""
    command = ["kubectl", "--namespace", namespace, "get", kinds, "--output", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except FileNotFoundError:
        raise UsageError("--namespace needs kubectl on PATH") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"kubectl did not list {kinds} of namespace {namespace} within {SECONDS} s") from None
    if done.returncode:
        raise UsageError(f"kubectl cannot list {kinds} of namespace {namespace}: {done.stderr.strip()}")
    return json.loads(done.stdout)["items"]
