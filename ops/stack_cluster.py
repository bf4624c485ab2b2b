"""The cluster that a stack means: what its file names, or else the environment. Never the ambient one instead of a named one."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from topology import stack_file

Manifest = Mapping[str, Any]
#: Label of the stack on every object that it makes.
INSTANCE = "app.kubernetes.io/instance"


@dataclass(frozen=True)
class Cluster:
    """kubectl on one cluster."""

    #: What makes kubectl mean this cluster, before any command.
    arguments: Sequence[str] = ()
    #: How to call it in a message.
    where: str = "KUBECONFIG"

    def command(self, *arguments: str) -> list[str]:
        """A whole command line, for a step that a terminal shows."""
        return ["kubectl", *self.arguments, *arguments]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One command; its answer, whatever the code."""
        return subprocess.run(
            self.command("--request-timeout=10s", *arguments), input=stdin, capture_output=True, text=True, check=False
        )

    def items(self, *arguments: str) -> list[Manifest]:
        """The objects that `kubectl get` shows; none where it may not, or there are none."""
        answer = self.run("get", *arguments, "--output=json", "--ignore-not-found")
        if answer.returncode or not answer.stdout.strip():
            return []
        found = json.loads(answer.stdout)
        return cast("list[Manifest]", found["items"] if found["kind"].endswith("List") else [found])


@contextmanager
def cluster_of(stack: str) -> Generator[Cluster]:
    """The cluster of `stack`. A kubeconfig that its file holds is in a file of its own until this ends."""
    config = stack_file.config_of(stack)
    context = config.get("kubernetes:context")
    arguments = [f"--context={context}"] if context else []
    end = f", context {context}" if context else ""
    kubeconfig = config.get("kubernetes:kubeconfig")
    if kubeconfig is None:
        yield Cluster(arguments, f"KUBECONFIG ({os.environ.get('KUBECONFIG') or '~/.kube/config'}){end}")
        return
    with tempfile.TemporaryDirectory() as folder:
        # Whatever happens, the ambient one is not asked instead.
        file = Path(folder, "kubeconfig")
        file.touch(mode=0o600)
        file.write_text(kubeconfig if isinstance(kubeconfig, str) else _decrypted(stack), encoding="utf-8")
        yield Cluster([f"--kubeconfig={file}", *arguments], f"kubernetes:kubeconfig of the stack{end}")


def _decrypted(stack: str) -> str:
    command = ["pulumi", "config", "get", "kubernetes:kubeconfig", "--stack", stack, "--non-interactive"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
