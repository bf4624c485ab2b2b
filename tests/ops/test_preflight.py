"""`superset-async preflight`: what follows from what was found, each with the command that mends it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops import preflight, registry
from ops.cli import app
from ops.preflight import Facts, Finding, Right
from policies.check import graph_of
from tests.waiting import free_port, until
from tools.image import Image
from topology import stack_file
from topology.plan import plan

MINIMAL: dict[str, Any] = {
    "platform": "kubernetes",
    "topology": "minimal",
    "images": {"superset": "registry.example.com/superset:1"},
}
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
CLASS = {"metadata": {"name": "fast", "annotations": DEFAULT}, "allowVolumeExpansion": True}
READY = Facts(login="me", server=(1, 34), storage_classes=[CLASS])


def of(config: dict[str, Any], facts: Facts) -> list[Finding]:
    return preflight.findings(plan("mine", config), graph_of("mine", config), facts)


def namespace(**labels: str) -> dict[str, Any]:
    known = {"enforce": "pod-security.kubernetes.io/enforce", "stack": "app.kubernetes.io/instance"}
    return {"metadata": {"name": "superset", "labels": {known[key]: value for key, value in labels.items()}}}


def quota(memory: str, used: str) -> dict[str, Any]:
    status = {"hard": {"requests.memory": memory, "pods": "9"}, "used": {"requests.memory": used}}
    return {"metadata": {"name": "team"}, "status": status}


def test_images_of_production_are_told_their_digests() -> None:
    """Of each image that the stack itself names and runs, where a registry gave one; nowhere else are they asked for."""
    digest = f"sha256:{'a' * 64}"
    servers = {server: {"tls": {"kind": "generated"}} for server in ("redis", "postgres")}
    prod = MINIMAL | servers | {"environment": "prod"}
    found = {
        each.what.split()[0]: each.mend for each in of(prod, replace(READY, digests={MINIMAL["images"]["superset"]: digest}))
    }
    assert found["images.superset"] == f"set images.superset to registry.example.com/superset:1@{digest}"
    assert set(found) == {"images.superset", "images.redis", "images.postgres"}
    assert "no registry gave a digest" in found["images.redis"]
    pinned = {name: f"registry.example.com/{name}:1@{digest}" for name in ("superset", "redis", "postgres")}
    assert of(prod | {"images": pinned}, READY) == []


@pytest.mark.services
def test_a_registry_says_the_digest_of_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real registry, asked by a real tool: a tag that is there, one that is not, and a registry that is away."""
    server, tool = shutil.which("docker-registry"), shutil.which("skopeo")
    if server is None or tool is None:
        pytest.skip("docker-registry and skopeo not found: install Debian's packages docker-registry and skopeo")
    port = free_port()
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    (tmp_path / "registry.yml").write_text(
        json.dumps({"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}})
    )
    # In clear on this machine alone: where the tool looks for it.
    settings = tmp_path / ".config/containers"
    settings.mkdir(parents=True)
    (settings / "registries.conf").write_text(f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    archive, tag = tmp_path / "image.tar", f"127.0.0.1:{port}/superset-async:1"
    image = Image()
    image.texts["/hello"] = ("hello", 0o644)
    image.save(archive, ["superset-async:1"])
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([server, "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)
    try:
        until(lambda: "listening on" in (tmp_path / "log").read_text(), 60, "the registry listens")
        digest_file = tmp_path / "digest"
        copy = [
            tool,
            "--insecure-policy",
            "copy",
            f"--digestfile={digest_file}",
            f"docker-archive:{archive}",
            f"docker://{tag}",
        ]
        done = subprocess.run(copy, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found = registry.digests([tag, f"127.0.0.1:{port}/superset-async:2", f"127.0.0.1:{free_port()}/superset-async:1"])
        assert found == {tag: digest_file.read_text().strip()}
        # The stack file takes what it says.
        images = {"superset": f"{tag}@{found[tag]}"}
        assert plan("mine", MINIMAL | {"images": images}).images.superset == images["superset"]
    finally:
        process.terminate()
        process.wait(30)


def test_a_cluster_that_has_all_is_found_fault_with_in_nothing() -> None:
    assert of(MINIMAL, READY) == []


@pytest.mark.parametrize(
    ("facts", "config", "severity", "what", "mend"),
    [
        ({"engine": False}, {}, "stop", "no `pulumi` on PATH", "install"),
        ({"login": None, "login_problem": "no credentials"}, {}, "stop", "no credentials", "pulumi login file://"),
        ({"needs_passphrase": True}, {}, "stop", "under a passphrase", "export PULUMI_CONFIG_PASSPHRASE_FILE"),
        ({"has_kubectl": False}, {}, "stop", "no `kubectl`", "install"),
        ({"server": None, "where": "context prod"}, {}, "stop", "answers at context prod", "export KUBECONFIG"),
        ({"server": (1, 27)}, {}, "stop", "1.27; needed is 1.28", "upgrade"),
        ({"server": (1, 38)}, {}, "advice", "1.38", "make policy"),
        (
            {"refused": frozenset({Right("create", "apps", "statefulsets", "superset")})},
            {},
            "stop",
            "not create statefulsets.apps in namespace superset",
            "kubectl create role",
        ),
        (
            {"refused": frozenset({Right("create", "", "namespaces", "")})},
            {},
            "stop",
            "not create namespaces in the cluster",
            "existing_namespace",
        ),
        ({}, {"topology": "enterprise", "workers": {"scaling": {"kind": "keda"}}}, "stop", "no ScaledObject", "keda.sh"),
        (
            {"definitions": {("keda.sh", "scaledobjects"): ("v2",), ("keda.sh", "triggerauthentications"): ("v1alpha1",)}},
            {"topology": "enterprise", "workers": {"scaling": {"kind": "keda"}}},
            "stop",
            "serves v2",
            "serves v1alpha1",
        ),
        ({"storage_classes": []}, {}, "stop", "no default StorageClass", "superset-async:storage_class"),
        ({}, {"storage_class": "slow"}, "stop", "no StorageClass slow", "one of fast"),
        (
            {"storage_classes": [{**CLASS, "allowVolumeExpansion": False}]},
            {},
            "advice",
            "expands no volume",
            "kubectl patch",
        ),
        ({}, {"existing_namespace": True}, "stop", "there is no namespace superset", "kubectl create namespace"),
        (
            {"namespace": namespace(stack="theirs", enforce="restricted")},
            {},
            "stop",
            "is the stack theirs's",
            "superset-async:namespace",
        ),
        ({"namespace": namespace(enforce="restricted")}, {}, "stop", "not this stack's", "existing_namespace: true"),
        (
            {"namespace": namespace(stack="mine", enforce="baseline")},
            {},
            "advice",
            "beyond Pod Security",
            "kubectl label namespace superset pod-security.kubernetes.io/enforce=restricted",
        ),
        ({"quotas": [quota("1Gi", "0")]}, {}, "stop", "quota team allows requests.memory 1Gi", "edit resourcequota team"),
        ({"quotas": [quota("90Gi", "89.9Gi")]}, {}, "stop", "beside what is used", "edit resourcequota team"),
        ({}, {"images": {"superset": "superset:1"}}, "advice", "without a registry", "make image"),
    ],
)
def test_each_finding_has_the_command_that_mends_it(
    facts: dict[str, Any], config: dict[str, Any], severity: str, what: str, mend: str
) -> None:
    found = of({**MINIMAL, **config}, replace(READY, **facts))
    (one, *_) = [each for each in found if what in each.what]
    assert one.severity == severity
    assert mend in one.mend


def test_the_stacks_own_use_counts_once_in_a_quota() -> None:
    mine = namespace(stack="mine", enforce="restricted")
    assert of(MINIMAL, replace(READY, quotas=[quota("90Gi", "89.9Gi")], namespace=mine)) == []


def test_rights_are_asked_for_every_kind_where_it_lives() -> None:
    config = {**MINIMAL, "topology": "multi-tenant", "tenants": {"acme": {"users": ["ann"], "pool": "dedicated"}}}
    asked = preflight.rights(graph_of("mine", config), "superset")
    places = {(right.group, right.resource, right.namespace) for right in asked}
    assert ("", "namespaces", "") in places
    assert ("scheduling.k8s.io", "priorityclasses", "") in places
    assert ("networking.k8s.io", "networkpolicies", "superset") in places
    assert ("apps", "statefulsets", "superset") in places
    assert {right.verb for right in asked} == {"get", "create", "patch", "delete"}


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return tmp_path


def test_a_missing_kubeconfig_is_a_sentence(stacks: Path) -> None:
    (stacks / "Pulumi.mine.yaml").write_text(
        "config:\n  superset-async:platform: kubernetes\n  superset-async:topology: minimal\n"
    )
    done = CliRunner().invoke(app, ["preflight", "--stack", "mine"])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    wanted = (
        f"no API server answers at KUBECONFIG ({stacks / 'none'})" if shutil.which("kubectl") else "no `kubectl` on PATH"
    )
    assert wanted in done.output


def test_what_kubectl_creates_comes_as_documents_one_after_the_other() -> None:
    assert preflight.documents('{"a": 1}\n{\n "b": {}\n}\n') == [{"a": 1}, {"b": {}}]
    assert preflight.documents("\n") == []
