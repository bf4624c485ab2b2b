"""Every topology on a real API server with its controllers, on simulated nodes: accepted, admitted, at rest, and stable."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.conftest import FIGURES, Rendered, Stacks, merged
from tests.cluster.control_plane import ControlPlane, wait_until
from tests.cluster.deployed import desired, identity, pods_by_component, settle, templates_by_component
from tests.cluster.external_metrics import QueueDepths
from topology import stack_file

pytestmark = pytest.mark.cluster

ROUTE = {"host": "superset.example.com", "from_namespaces": ["ingress"]}


def existing(host: str) -> dict[str, Any]:
    """Settings of a Redis that the stack does not run, over TLS, with its password in a Secret of its namespace."""
    server = {"host": host, "port": 6380, "tls": True, "password_secret": "login", "cidrs": ["10.9.0.0/24"]}
    return {"existing": server, "replicas": 0, "sentinel": False}


#: Ways in which a stack can be made of other kinds of objects than the project's own stacks are.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "enterprise-hpa-ingress-tls": (
        "enterprise",
        {
            "redis": {"tls": {"kind": "secret", "secret": "redis-certificate"}},
            "postgres": {"tls": {"kind": "cert-manager", "issuer": "internal-ca", "issuer_kind": "ClusterIssuer"}},
            "workers": {"scaling": {"kind": "hpa"}},
            "metrics": {"service_monitor": True},
            "web": {"route": {**ROUTE, "kind": "ingress", "parent": "nginx", "tls_secret": "superset-tls"}},
        },
    ),
    "enterprise-cnpg-gateway-existing-redis": (
        "enterprise",
        {
            "redis": {"broker": existing("broker.example.com"), "cache": existing("cache.example.com")},
            "postgres": {"kind": "cloudnativepg", "instances": 3, "tls": {"kind": "generated"}},
            "web": {"route": {**ROUTE, "kind": "gateway", "parent": "gateways/public", "tls_secret": None}},
        },
    ),
}
OWN = {name: (name, {}) for name in stack_file.names() if stack_file.read(name).get("platform") == "kubernetes"}
ALL: dict[str, tuple[str, dict[str, Any]]] = {**OWN, **VARIANTS}


@pytest.fixture(scope="module")
def queues(cluster: ControlPlane) -> Iterator[QueueDepths]:
    serving = QueueDepths(cluster)
    yield serving
    serving.stop()


@pytest.fixture(scope="module", params=list(ALL))
def deployed(request: pytest.FixtureRequest, cluster: ControlPlane, stacks: Stacks, queues: QueueDepths) -> Rendered:
    """A stack, applied; what it is made of and how long that took goes into the closing table."""
    stack, changes = ALL[request.param]
    rendered = stacks.render(request.param, stack, changes)
    started = time.monotonic()
    applied = cluster.apply(*rendered.files)
    seconds = time.monotonic() - started
    assert "Warning" not in applied.stderr, applied.stderr
    lines = applied.stdout.splitlines()
    assert len(lines) == len(rendered.manifests)
    settle(cluster, rendered.namespace)
    FIGURES[request.param] = {
        "objects": len(lines),
        "render": f"{rendered.seconds:.1f} s",
        "apply": f"{seconds:.1f} s",
        "at rest": f"{time.monotonic() - started:.1f} s",
        "notes": f"{sum(line.endswith('serverside-applied') for line in lines)} applied, 0 warnings",
    }
    return rendered


def test_all_four_topologies_are_tried() -> None:
    assert {stack_file.read(stack)["topology"] for stack in OWN} == {
        "minimal",
        "enterprise",
        "high-throughput",
        "multi-tenant",
    }


def test_every_object_is_accepted_and_comes_to_rest(cluster: ControlPlane, deployed: Rendered) -> None:
    """Server-side, every field known, without a warning; workloads ready, jobs complete, claims bound (the fixture waits)."""
    kinds = {manifest["kind"] for manifest in deployed.manifests}
    assert {"Namespace", "NetworkPolicy", "Secret", "ConfigMap", "Service", "Job", "Deployment"} <= kinds
    # One stack has its Redis elsewhere and its PostgreSQL from an operator.
    assert ("StatefulSet" in kinds) == (deployed.namespace != "enterprise-cnpg-gateway-existing-redis")
    found = desired(cluster, deployed.manifests, deployed.namespace)
    assert set(found) == {identity(each) for each in deployed.manifests if each["kind"] != "Namespace"}


def test_pod_security_restricted_admits_every_pod(cluster: ControlPlane, deployed: Rendered) -> None:
    labels = cluster.object("namespace", deployed.namespace, "default")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    events = cluster.get("events", deployed.namespace)
    assert [each["message"] for each in events if each["reason"] == "FailedCreate"] == []
    pods = pods_by_component(cluster, deployed.namespace)
    wanted = [each for each in deployed.manifests if each["kind"] in ("Deployment", "StatefulSet", "Job")]
    assert len(wanted) > 0
    assert sum(len(each) for each in pods.values()) >= len(wanted)


def test_a_second_apply_changes_nothing(cluster: ControlPlane, deployed: Rendered) -> None:
    before = desired(cluster, deployed.manifests, deployed.namespace)
    pods = pods_by_component(cluster, deployed.namespace)
    cluster.apply(*deployed.files)
    settle(cluster, deployed.namespace)
    assert desired(cluster, deployed.manifests, deployed.namespace) == before
    assert pods_by_component(cluster, deployed.namespace) == pods


@dataclass(frozen=True)
class Change:
    """A change of settings, on top of those before it, and the components whose pods it replaces."""

    what: str
    settings: Mapping[str, Any]
    rolls: frozenset[str] = field(default_factory=frozenset[str])


CHANGES = (
    Change("network only", {"network": {"egress": {"mail": {"cidrs": ["10.20.0.0/16"], "ports": [587]}}}}),
    Change("more workers", {"workers": {"min_workers": 2}}),
    Change("prefetch", {"workers": {"prefetch_multiplier": 2}}, frozenset({"worker-default"})),
    Change("web threads", {"web": {"threads": 12}}, frozenset({"web"})),
    Change("Redis's image", {"images": {"redis": "valkey/valkey:8.1.5"}}, frozenset({"redis"})),
    Change("PostgreSQL's memory", {"postgres": {"resources": {"memory_limit": "2Gi"}}}, frozenset({"postgres"})),
    Change(
        "a cache's lifetime",
        {"caching": {"chart_data_ttl": 7200}},
        frozenset({"web", "worker-default", "beat", "superset-init"}),
    ),
)


def test_a_changed_setting_replaces_only_the_pods_that_it_concerns(cluster: ControlPlane, stacks: Stacks) -> None:
    namespace, changes = "changes", dict[str, Any]()
    cluster.apply(*stacks.render(namespace, "minimal").files)
    settle(cluster, namespace)
    for change in CHANGES:
        changes = merged(changes, change.settings)
        before = templates_by_component(cluster, namespace)
        cluster.apply(*stacks.render(namespace, "minimal", changes).files)
        settle(cluster, namespace)
        after = templates_by_component(cluster, namespace)
        assert {each for each in after if after[each] - before[each]} == change.rolls, change.what


def test_an_hpa_adds_workers_for_what_waits_in_their_queue(
    cluster: ControlPlane, stacks: Stacks, queues: QueueDepths
) -> None:
    """With the metric as an adapter would serve it: 50 a worker, so 500 waiting messages are 10 workers."""
    namespace = "hpa-on-queues"
    rendered = stacks.render(namespace, "enterprise", {"workers": {"scaling": {"kind": "hpa"}}})
    cluster.apply(*rendered.files)
    settle(cluster, namespace)

    def workers() -> int:
        return cluster.object("deployment", "worker-default", namespace)["spec"]["replicas"]

    assert workers() == 2
    queues.depths["default"] = 500
    try:
        # Twice as many every 30 seconds: 2, 4, 8, 10.
        wait_until(lambda: workers() == 10, "there are 10 workers", seconds=150, every=1)
    finally:
        queues.depths.clear()
