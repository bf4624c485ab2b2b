"""Tenants on a real API server: a quota that refuses, priorities that are admitted, and changes that concern nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.conftest import Stacks, merged
from tests.cluster.control_plane import ControlPlane, Manifest, wait_until
from tests.cluster.deployed import settle, templates_by_component

pytestmark = pytest.mark.cluster

NAMESPACE = "tenants"
TENANT = "superset-async/tenant"
#: Room for two workers and the one that an update adds.
LIMITED = {"users": ["ann"], "min_workers": 2, "max_workers": 2, "quota": {"cpu": "1500m", "memory": "3Gi"}}
TENANTS: dict[str, Any] = {
    "tenant-a": LIMITED | {"priority": "high"},
    "tenant-b": {"users": ["bob"], "priority": "low", "max_workers": 3},
}
SMALL: dict[str, Any] = {"web": {"min_replicas": 1, "max_replicas": 1}}


@pytest.fixture(scope="module")
def deployed(cluster: ControlPlane, stacks: Stacks) -> str:
    cluster.apply(*stacks.render(NAMESPACE, "multi-tenant", SMALL | {"tenants": TENANTS}).files)
    settle(cluster, NAMESPACE, 120)
    return NAMESPACE


def workers(cluster: ControlPlane, namespace: str, tenant: str) -> list[Manifest]:
    return [pod for pod in cluster.get("pods", namespace) if pod["metadata"]["labels"].get(TENANT) == tenant]


def test_a_quota_refuses_a_tenants_pod_beyond_it_and_nobody_elses(cluster: ControlPlane, deployed: str) -> None:
    cluster.kubectl("scale", "deployment/worker-tenant-a", "--replicas=6", "--namespace", deployed)
    cluster.kubectl("scale", "deployment/worker-tenant-b", "--replicas=6", "--namespace", deployed)
    try:
        wait_until(lambda: len(workers(cluster, deployed, "tenant-b")) == 6, "the other tenant has its six")

        def refusals() -> list[str]:
            return [each["message"] for each in cluster.get("events", deployed) if each["reason"] == "FailedCreate"]

        wait_until(lambda: any("exceeded quota: worker-tenant-a-share" in each for each in refusals()), "a pod is refused")
        assert all("worker-tenant-a-share" in each for each in refusals())
        running = [each for each in workers(cluster, deployed, "tenant-a") if each["status"]["phase"] == "Running"]
        assert len(running) == 3
        used = cluster.object("resourcequota", "worker-tenant-a-share", deployed)["status"]["used"]
        assert used == {"requests.cpu": "1500m", "requests.memory": "3Gi"}
    finally:
        cluster.kubectl("scale", "deployment/worker-tenant-a", "--replicas=2", "--namespace", deployed)
        cluster.kubectl("scale", "deployment/worker-tenant-b", "--replicas=1", "--namespace", deployed)
    settle(cluster, deployed, 120)


def test_an_update_at_the_limit_of_the_quota_goes_through(cluster: ControlPlane, stacks: Stacks, deployed: str) -> None:
    before = {each["metadata"]["uid"] for each in workers(cluster, deployed, "tenant-a")}
    cluster.kubectl("rollout", "restart", "deployment/worker-tenant-a", "--namespace", deployed)
    cluster.kubectl("rollout", "status", "deployment/worker-tenant-a", "--timeout=90s", "--namespace", deployed)
    settle(cluster, deployed, 120)
    assert not before & {each["metadata"]["uid"] for each in workers(cluster, deployed, "tenant-a")}


def test_the_platforms_pods_are_above_every_tenants(cluster: ControlPlane, deployed: str) -> None:
    priorities = {
        (each["metadata"]["labels"].get(TENANT), each["spec"]["priority"]) for each in cluster.get("pods", deployed)
    }
    assert priorities == {(None, 0), ("tenant-a", -1), ("tenant-b", -10)}


def test_a_tenant_comes_and_goes_and_the_others_pods_stay(cluster: ControlPlane, stacks: Stacks, deployed: str) -> None:
    def apply(tenants: dict[str, Any]) -> set[str]:
        before = templates_by_component(cluster, deployed)
        rendered = stacks.render(deployed, "multi-tenant", SMALL | {"tenants": tenants})
        cluster.apply(*rendered.files)
        settle(cluster, deployed, 120)
        after = templates_by_component(cluster, deployed)
        return {each for each in after if after[each] - before.get(each, set())}

    told = {"beat", "superset-init"}
    assert apply(merged(TENANTS, {"newcomer": {"users": ["nina"]}})) == {*told, "worker-newcomer"}
    # The engine has deleted the job of the earlier queues, whose name that of the same queues now has again.
    cluster.kubectl("delete", "job", "--all", "--namespace", deployed)
    assert apply(TENANTS) == told
    # What the engine deletes, by the label that all of it has.
    label = f"--selector={TENANT}=newcomer"
    kinds = "deployment,poddisruptionbudget,scaledobject,triggerauthentication,serviceaccount,priorityclass"
    gone = cluster.kubectl("delete", kinds, label, "--namespace", deployed, "--wait=true").stdout.splitlines()
    assert len(gone) == 6
    settle(cluster, deployed, 120)
    assert workers(cluster, deployed, "newcomer") == []
