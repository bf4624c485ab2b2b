"""Mistakes that a component could make, planted in what it renders: each is caught by what the other tests here look at."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import Stacks
from tests.cluster.control_plane import ControlPlane, Manifest, wait_until
from tests.cluster.deployed import identity, settle, unsettled

pytestmark = pytest.mark.cluster

Mistake = Callable[[dict[str, Manifest]], None]


@pytest.fixture
def with_mistake(stacks: Stacks, tmp_path: Path) -> Callable[..., list[Path]]:
    """Files of a stack, rendered correctly but for one mistake, in a namespace that is this test's own."""

    def render(mistake: Mistake, stack: str, changes: dict[str, Any] | None = None) -> list[Path]:
        namespace = f"mistake-{secrets.token_hex(4)}"
        manifests = stacks.render(namespace, stack, changes).manifests
        before = deepcopy(manifests)
        mistake({identity(each): each for each in manifests})
        assert manifests != before
        path = tmp_path / "all.yaml"
        path.write_text(yaml.safe_dump_all(manifests))
        return [path]

    return render


def namespace_of(files: list[Path]) -> str:
    return next(yaml.safe_load_all(files[0].read_text()))["metadata"]["name"]


def container(manifest: Manifest) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("kind", "field", "misspelt"),
    [
        ("ScaledObject", "maxReplicaCount", "maxReplicasCount"),
        ("Cluster", "instances", "instance"),
        ("HTTPRoute", "hostnames", "hosts"),
        ("Deployment", "revisionHistoryLimit", "revisionsHistoryLimit"),
    ],
)
def test_a_misspelt_field_is_refused(
    cluster: ControlPlane, with_mistake: Callable[..., list[Path]], kind: str, field: str, misspelt: str
) -> None:
    def misspell(objects: dict[str, Manifest]) -> None:
        spec = next(each for name, each in objects.items() if name.startswith(f"{kind}/"))["spec"]
        spec[misspelt] = spec.pop(field)

    route = {"kind": "gateway", "host": "superset.example.com", "parent": "gateways/public", "from_namespaces": ["gateways"]}
    changes = {"postgres": {"kind": "cloudnativepg", "instances": 3}, "web": {"route": {**route, "tls_secret": None}}}
    refused = cluster.apply(*with_mistake(misspell, "enterprise", changes), check=False)
    assert refused.returncode != 0
    assert f'unknown field "spec.{misspelt}"' in refused.stderr or f".spec.{misspelt}: field not declared" in refused.stderr


def test_a_root_container_is_warned_of_and_never_runs(
    cluster: ControlPlane, with_mistake: Callable[..., list[Path]]
) -> None:
    def run_as_root(objects: dict[str, Manifest]) -> None:
        container(objects["Deployment/web"])["securityContext"] |= {"runAsNonRoot": False, "runAsUser": 0}

    files = with_mistake(run_as_root, "minimal")
    namespace = namespace_of(files)
    applied = cluster.apply(*files)
    assert 'would violate PodSecurity "restricted:latest"' in applied.stderr
    with pytest.raises(AssertionError, match=r'Deployment/web: .*violates PodSecurity "restricted:latest": runAsNonRoot'):
        settle(cluster, namespace, 15)
    assert all(each.startswith(("Deployment/web", "PodDisruptionBudget/web")) for each in unsettled(cluster, namespace))


def test_a_cpu_scaler_over_pods_without_a_request_is_not_at_rest(
    cluster: ControlPlane, with_mistake: Callable[..., list[Path]]
) -> None:
    def request_no_cpu(objects: dict[str, Manifest]) -> None:
        for part in container(objects["Deployment/web"])["resources"].values():
            del part["cpu"]  # a limit alone would be taken for the request

    changes = {"web": {"min_replicas": 1, "max_replicas": 2}}
    files = with_mistake(request_no_cpu, "minimal", changes)
    cluster.apply(*files)
    with pytest.raises(AssertionError, match=r"HorizontalPodAutoscaler/web: does not scale; .*missing request for cpu"):
        settle(cluster, namespace_of(files), 30)


def test_replicas_beside_a_scaler_conflict_once_it_has_scaled(
    cluster: ControlPlane, with_mistake: Callable[..., list[Path]]
) -> None:
    def set_replicas(objects: dict[str, Manifest]) -> None:
        objects["Deployment/web"]["spec"]["replicas"] = 1

    files = with_mistake(set_replicas, "minimal", {"web": {"min_replicas": 2, "max_replicas": 3}})
    namespace = namespace_of(files)
    cluster.apply(*files)
    wait_until(
        lambda: cluster.object("deployment", "web", namespace)["spec"]["replicas"] == 2, "the scaler has scaled", seconds=60
    )
    again = cluster.apply(*files, check=False)
    assert again.returncode != 0
    assert 'conflict with "kube-controller-manager" with subresource "scale"' in again.stderr
    assert ".spec.replicas" in again.stderr
