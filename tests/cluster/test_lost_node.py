"""A node that is lost with everything on it: what comes back by itself, how soon, and what waits for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import FIGURES, Stacks
from tests.cluster.control_plane import ControlPlane, wait_until
from tests.cluster.deployed import COMPONENT, settle

pytestmark = pytest.mark.cluster

NAMESPACE = "lost-node"
NODE = "doomed-0"
#: What keeps nothing on its node.
STATELESS = ("beat", "exporter", "web", "worker-default")
#: What keeps its volume, which a lost node may still be writing to.
STATEFUL = ("postgres", "redis")


@pytest.fixture(scope="module")
def lost(cluster: ControlPlane, stacks: Stacks) -> Iterator[ControlPlane]:
    """The stack `minimal` on one node, which is silent now; the other nodes take pods."""
    others = [each["metadata"]["name"] for each in cluster.get("nodes")]
    cluster.simulate_nodes(1, "doomed")
    cluster.kubectl("cordon", *others)
    try:
        cluster.apply(*stacks.render(NAMESPACE, "minimal").files)
        settle(cluster, NAMESPACE)
    finally:
        cluster.kubectl("uncordon", *others)
    assert set(nodes_of(cluster).values()) == {NODE}
    cluster.processes.stop("kwok-doomed")
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    cluster.kubectl("delete", "node", NODE)


def nodes_of(cluster: ControlPlane) -> dict[str, str]:
    """The node of each component's pod that is ready and stays, by component."""
    return {
        pod["metadata"]["labels"][COMPONENT]: pod["spec"]["nodeName"]
        for pod in cluster.get("pods", NAMESPACE)
        if "deletionTimestamp" not in pod["metadata"]
        and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
    }


def test_what_keeps_nothing_is_back_on_another_node_in_a_minute(lost: ControlPlane) -> None:
    """The cluster takes 50 s to call a node lost; then these pods leave it, where the usual ones stay for 300 s more."""
    started = time.monotonic()

    def back() -> bool:
        found = nodes_of(lost)
        return all(found.get(each, NODE) != NODE for each in STATELESS)

    wait_until(back, "beat, exporter, web and workers are on other nodes", 240, every=1)
    seconds = time.monotonic() - started
    FIGURES["a node is lost"] = {
        "notes": f"beat, exporter, web and worker are scheduled and ready elsewhere after {seconds:.0f} s"
    }
    (beat, *more) = [pod for pod in lost.get("pods", NAMESPACE) if pod["metadata"]["labels"].get(COMPONENT) == "beat"]
    # The lost node may still run it; the reaper's lock and the fence of executions are for that time.
    assert len(more) == 1
    assert sum("deletionTimestamp" in each["metadata"] for each in (beat, *more)) == 1


def test_what_has_a_volume_waits_for_a_persons_word(lost: ControlPlane) -> None:
    """docs/faults.md: nobody but a person knows that the node does not write to the volume any more."""
    pods = {pod["metadata"]["name"]: pod for pod in lost.get("pods", NAMESPACE)}
    before = {name: pods[f"{name}-0"]["metadata"]["uid"] for name in STATEFUL}
    assert {pods[f"{name}-0"]["spec"]["nodeName"] for name in STATEFUL} == {NODE}
    lost.kubectl("taint", "nodes", NODE, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")

    def moved() -> bool:
        now = {pod["metadata"]["name"]: pod for pod in lost.get("pods", NAMESPACE)}
        found = nodes_of(lost)
        return all(
            now.get(f"{name}-0", pods[f"{name}-0"])["metadata"]["uid"] != before[name] and found.get(name, NODE) != NODE
            for name in STATEFUL
        )

    wait_until(moved, "servers are on other nodes", 240, every=1)
