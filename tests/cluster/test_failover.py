"""The broker of an HA topology in real pods: its primary is lost, a replica takes over with everything that was written."""

from __future__ import annotations

import time

import pytest
import yaml

from tests.cluster import images
from tests.cluster.conftest import FIGURES, Rendered, Stacks
from tests.cluster.control_plane import ControlPlane, Manifest, wait_until
from tests.cluster.deployed import identity, settle
from tests.cluster.real_node import RealNode

pytestmark = pytest.mark.cluster

NAMESPACE = "failover"
IMAGE = "localhost/valkey:1"
BROKER = "redis-broker"
SMALL = {"cpu_request": "20m", "memory_request": "128Mi", "memory_limit": "128Mi"}
SETTINGS = {"images": {"redis": IMAGE}, "redis": {"broker": {"maxmemory": "64Mi", "volume_size": "1Gi", "resources": SMALL}}}


@pytest.fixture(scope="module")
def broker(node: RealNode, stacks: Stacks) -> ControlPlane:
    """The broker's objects of the rendered stack, at rest on the node: one primary, two replicas, three Sentinels."""
    rendered = stacks.render(NAMESPACE, "enterprise", SETTINGS)
    node.load(images.valkey(), IMAGE)
    node.cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(of_broker(rendered)))
    settle(node.cluster, NAMESPACE, 180)
    return node.cluster


def of_broker(rendered: Rendered) -> list[Manifest]:
    return [
        each for each in rendered.manifests if each["kind"] == "Namespace" or each["metadata"]["name"].startswith(BROKER)
    ]


def ask(cluster: ControlPlane, pod: str, *command: str, port: int = 6379) -> str:
    """What redis-cli in a pod says, as the operator; nothing where the pod cannot be asked."""
    arguments = ("exec", pod, f"--namespace={NAMESPACE}", "--", "redis-cli", "--user", "operator", "-p", str(port), *command)
    return cluster.kubectl(*arguments, check=False).stdout.strip()


def primary(cluster: ControlPlane) -> str:
    """The primary's pod, as the Sentinels that answer tell; empty where they do not agree."""
    command = ("sentinel", "get-master-addr-by-name", BROKER)
    answers = {ask(cluster, f"{BROKER}-sentinel-{number}", *command, port=26379).partition(".")[0] for number in range(3)}
    return answers.pop() if len(answers - {""}) == len(answers) == 1 else ""


def another_than(cluster: ControlPlane, first: str) -> str:
    """The primary, once it is another pod than `first`; empty before."""
    now = primary(cluster)
    return "" if now == first else now


def test_a_primary_that_hangs_is_followed_by_a_replica_with_all_writes(broker: ControlPlane, node: RealNode) -> None:
    """Its process stops answering, without a word to anybody; killed and started again, it is a replica of the other."""
    first = wait_until(lambda: primary(broker), "the Sentinels agree on a primary")
    wait_until(lambda: "connected_slaves:2" in ask(broker, first, "info", "replication"), "two replicas are connected")
    tasks = [f"task-{number}" for number in range(100)]
    assert ask(broker, first, "rpush", "default", *tasks) == "100"
    assert ask(broker, first, "wait", "2", "5000") == "2"
    pod = broker.object("pod", first, NAMESPACE)
    node.signal(pod, "SIGSTOP")
    hung = time.monotonic()
    second = wait_until(lambda: another_than(broker, first), "another server is the primary", 90)
    elected = time.monotonic() - hung
    wait_until(lambda: ask(broker, second, "rpush", "default", "after") == "101", "the new primary takes writes", 60)
    writes = time.monotonic() - hung
    assert ask(broker, second, "lrange", "default", "0", "-1").split() == [*tasks, "after"]
    FIGURES["broker's primary hangs"] = {"notes": f"another after {elected:.0f} s, takes writes after {writes:.0f} s"}
    node.signal(pod, "SIGKILL")
    wait_until(lambda: "role:slave" in ask(broker, first, "info", "replication"), "the old primary is a replica", 90)
    wait_until(lambda: ask(broker, first, "llen", "default") == "101", "and has everything", 60)
    settle(broker, NAMESPACE, 120)


def test_a_drained_primary_hands_over_before_it_stops(broker: ControlPlane) -> None:
    """As in a rollout or a drain: its preStop hook makes another server the primary, and nothing is lost."""
    first = wait_until(lambda: primary(broker), "the Sentinels agree on a primary")
    held = ask(broker, first, "llen", "default")
    uid = broker.object("pod", first, NAMESPACE)["metadata"]["uid"]
    broker.kubectl("delete", "pod", first, f"--namespace={NAMESPACE}", "--wait=false")
    second = wait_until(lambda: another_than(broker, first), "another server is the primary", 60)
    assert ask(broker, second, "llen", "default") == held
    wait_until(
        lambda: any(
            identity(each) == f"Pod/{first}" and each["metadata"]["uid"] != uid for each in broker.get("pods", NAMESPACE)
        ),
        "there is another pod",
        150,
    )
    settle(broker, NAMESPACE, 120)
    assert ask(broker, first, "llen", "default") == held
