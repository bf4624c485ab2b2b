"""The cluster that a stack means is the one that its file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack_cluster import cluster_of
from topology import stack_file


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    return tmp_path


def test_the_stacks_own_kubeconfig_is_used_and_not_the_ambient_one(stacks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/else")
    (stacks / "Pulumi.mine.yaml").write_text("config:\n  kubernetes:kubeconfig: own\n  kubernetes:context: prod\n")
    with cluster_of("mine") as cluster:
        option, context = cluster.arguments
        file = Path(option.removeprefix("--kubeconfig="))
        assert file.read_text() == "own"
        assert file.stat().st_mode & 0o777 == 0o600
        assert context == "--context=prod"
        assert cluster.where == "kubernetes:kubeconfig of the stack, context prod"
    assert not file.exists()


def test_without_one_the_environment_says_it(stacks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/else")
    (stacks / "Pulumi.mine.yaml").write_text("config: {}\n")
    with cluster_of("mine") as cluster:
        assert cluster.command("get", "pods") == ["kubectl", "get", "pods"]
        assert cluster.where == "KUBECONFIG (/somewhere/else)"
