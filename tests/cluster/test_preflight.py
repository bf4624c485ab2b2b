"""`superset-async preflight` on a real API server: what it finds, and that the command it gives mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ops.cli import app
from tests.cluster.control_plane import ControlPlane
from topology import stack_file

pytestmark = pytest.mark.cluster
Preflight = Callable[..., str]
NAMESPACE = "preflight"


@pytest.fixture
def preflight(cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preflight:
    """The command on a stack whose file names its own kubeconfig; the ambient one leads nowhere."""
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "ambient, and never asked"))
    (tmp_path / "kubectl").symlink_to(cluster.program("kubectl"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def ask(user: str = "admin", **settings: object) -> str:
        keys = {"topology": "minimal", "platform": "kubernetes", "namespace": NAMESPACE, **settings}
        config = {f"superset-async:{key}": value for key, value in keys.items()}
        config["kubernetes:kubeconfig"] = cluster.kubeconfig(user).read_text()
        (tmp_path / "Pulumi.mine.yaml").write_text(yaml.safe_dump({"config": config}))
        done = CliRunner().invoke(app, ["preflight", "--stack", "mine"])
        assert isinstance(done.exception, SystemExit | None), done.exception
        return done.output

    return ask


def test_storage_classes_are_asked_for_and_their_expansion(cluster: ControlPlane, preflight: Preflight) -> None:
    assert "no StorageClass preflight-disks" in preflight(storage_class="preflight-disks")
    disks = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "preflight-disks"},
        "provisioner": "example.com/none",
    }
    cluster.kubectl("create", "--filename=-", stdin=json.dumps(disks))
    found = preflight(storage_class="preflight-disks")
    assert "no StorageClass" not in found
    assert "expands no volume" in found
    cluster.kubectl("patch", "storageclass", "preflight-disks", "--patch", '{"allowVolumeExpansion": true}')
    assert "expands no volume" not in preflight(storage_class="preflight-disks")


def test_rights_are_reviewed_by_the_server(preflight: Preflight) -> None:
    assert "you may not" not in preflight()
    found = preflight("proxy")
    assert f"you may not get, create, patch, delete statefulsets.apps in namespace {NAMESPACE}" in found
    assert "you may not get, create, patch, delete namespaces in the cluster" in found


def test_a_namespace_of_somebody_else_is_found_with_its_label_and_its_quota(
    cluster: ControlPlane, preflight: Preflight
) -> None:
    assert "there is no namespace" in preflight(existing_namespace=True)
    cluster.kubectl("create", "namespace", NAMESPACE)
    assert "is there, and not this stack's" in preflight()
    found = preflight(existing_namespace=True)
    assert "admits pods beyond" in found
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    assert "admits pods beyond" not in preflight(existing_namespace=True)
    cluster.kubectl("create", "quota", "team", "--hard=requests.memory=1Gi", f"--namespace={NAMESPACE}")
    assert "quota team allows requests.memory 1Gi" in preflight(existing_namespace=True)
    cluster.kubectl("label", "namespace", NAMESPACE, "app.kubernetes.io/instance=theirs")
    assert f"namespace {NAMESPACE} is the stack theirs's" in preflight()


def test_custom_resources_are_looked_up_with_their_versions(cluster: ControlPlane, preflight: Preflight) -> None:
    keda = {"topology": "enterprise", "workers": {"scaling": {"kind": "keda"}}}
    assert "the cluster has no" not in preflight(**keda)
    definition = json.loads(cluster.kubectl("get", "crd", "scaledobjects.keda.sh", "--output=json").stdout)
    cluster.kubectl("delete", "crd", "scaledobjects.keda.sh")
    try:
        assert "the cluster has no ScaledObject (keda.sh), which is KEDA 2's" in preflight(**keda)
    finally:
        for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            definition["metadata"].pop(key, None)
        definition.pop("status", None)
        cluster.kubectl("create", "--filename=-", stdin=json.dumps(definition))
        cluster.kubectl("wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=60s")
