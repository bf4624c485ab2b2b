"""KEDA scales a worker pool on the length of its queue's list, in a real Valkey behind a real Sentinel: 2, 20, 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
import yaml

from local.binaries import valkey_server
from tests.cluster.conftest import FIGURES, Rendered, Stacks, built
from tests.cluster.control_plane import ControlPlane, Manifest, wait_until
from tests.cluster.deployed import identity, settle
from tests.cluster.keda import Keda
from tools import build

pytestmark = pytest.mark.cluster

NAMESPACE = "keda-scaling"
POOL = "worker-default"


@pytest.fixture
def rendered(stacks: Stacks) -> Rendered:
    return stacks.render(NAMESPACE, "enterprise")


@pytest.fixture
def broker(cluster: ControlPlane, rendered: Rendered, tmp_path: Path) -> Iterator[tuple[redis.Redis, int]]:
    """The broker with the users of the rendered Secret, and the port of its Sentinel."""
    secret = next(each for each in rendered.manifests if identity(each) == "Secret/redis-broker-auth")["stringData"]
    for file in ("users.acl", "sentinel.acl"):
        (tmp_path / file).write_text(secret[file])
    port, sentinel = cluster.port(2), cluster.port(3)
    common = f"bind 127.0.0.1\ndir {tmp_path}\n"
    server = tmp_path / "valkey.conf"
    server.write_text(f'{common}port {port}\naclfile {tmp_path}/users.acl\nsave ""\n')
    watch = tmp_path / "sentinel.conf"
    watch.write_text(
        f"{common}port {sentinel}\naclfile {tmp_path}/sentinel.acl\n"
        f"sentinel monitor redis-broker 127.0.0.1 {port} 1\nsentinel auth-user redis-broker operator\n"
        f"sentinel auth-pass redis-broker {secret['operator-password']}\n"
    )
    cluster.processes.start("valkey", [valkey_server(), server])
    cluster.processes.start("sentinel", [valkey_server(), watch, "--sentinel"])
    client = redis.Redis(port=port, username="broker", password=secret["broker-password"], decode_responses=True)
    try:
        wait_until(lambda: _answers(client), "Valkey answers")
        yield client, sentinel
    finally:
        client.close()
        cluster.processes.stop("sentinel", "valkey")


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def keda(cluster: ControlPlane) -> Iterator[Keda]:
    running = Keda(cluster, built(build.keda), NAMESPACE)
    yield running
    running.stop()


def on_this_machine(scaled: Manifest, sentinel: int) -> Manifest:
    """The ScaledObject with the Sentinel at its address here, and seconds where it waits for minutes."""
    spec: dict[str, Any] = scaled["spec"]
    for trigger in spec["triggers"]:
        if "addresses" in trigger["metadata"]:
            trigger["metadata"]["addresses"] = f"127.0.0.1:{sentinel}"
    spec["pollingInterval"] = 2
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behaviour["scaleDown"]["stabilizationWindowSeconds"] = 3
    for direction in behaviour.values():
        for policy in direction["policies"]:
            policy["periodSeconds"] = 2
    return scaled


@pytest.fixture
def watched(cluster: ControlPlane, rendered: Rendered) -> Iterator[None]:
    """The log `workers` has every number of workers that was ever wanted, one a line."""
    cluster.apply(*(each for each in rendered.files if "scaledobject" not in each.name))
    only = ("deployment", POOL, f"--namespace={NAMESPACE}", "--watch", '--output=jsonpath={.spec.replicas}{"\\n"}')
    cluster.processes.start("workers", [cluster.program("kubectl"), f"--kubeconfig={cluster.kubeconfig()}", "get", *only])
    yield
    cluster.processes.stop("workers")


@pytest.mark.usefixtures("watched")
def test_keda_scales_a_pool_on_its_queue_and_back(
    cluster: ControlPlane, rendered: Rendered, broker: tuple[redis.Redis, int], keda: Keda, tmp_path: Path
) -> None:
    """What is rendered, but for the address and for waits: lists, database, users, Sentinel, formula, bounds, step sizes."""
    client, sentinel = broker
    scaled = next(each for each in rendered.manifests if each["kind"] == "ScaledObject")
    path = tmp_path / "scaled.yaml"
    path.write_text(yaml.safe_dump(on_this_machine(scaled, sentinel)))
    cluster.apply(path)
    wait_until(lambda: workers(cluster) == 2, "KEDA starts two workers", 60)
    settle(cluster, NAMESPACE)
    steps: list[tuple[int, int]] = []

    def scaled_to(wanted: int) -> bool:
        step = (seen_by_keda(cluster), workers(cluster))
        if not steps or steps[-1] != step:
            steps.append(step)
        return step[1] == wanted

    assert scaled_to(2)
    client.rpush("default", *["task"] * 300)
    wait_until(lambda: scaled_to(6), "300 waiting: 6 workers", 60)
    client.hset("unacked", mapping={str(number): "task" for number in range(100)})
    wait_until(lambda: scaled_to(8), "300 waiting and 100 running: 8 workers", 60)
    client.rpush("default", *["task"] * 1200)
    wait_until(lambda: scaled_to(20), "1600 waiting or running: as many workers as there may be", 60)
    client.delete("default")
    wait_until(lambda: scaled_to(2), "none waiting and 100 running: 2 workers", 120)
    FIGURES["KEDA, messages seen:workers"] = {"notes": " ".join(f"{seen}:{count}" for seen, count in steps)}
    assert list(dict.fromkeys(seen for seen, _ in steps)) == [0, 300, 400, 1600, 100]
    counts = [int(line) for line in cluster.processes.log("workers").split()]
    down = list(dict.fromkeys(counts[counts.index(20) :]))
    assert down == list(range(20, 1, -1)), "one worker goes at a time"


def workers(cluster: ControlPlane) -> int:
    return cluster.object("deployment", POOL, NAMESPACE)["spec"]["replicas"]


def seen_by_keda(cluster: ControlPlane) -> int:
    """What KEDA answers now to the HPA that it made, as the API server passes it on."""
    scaler = next(each for each in cluster.get("hpa", NAMESPACE) if each["spec"]["scaleTargetRef"]["name"] == POOL)
    metric = next(each["external"]["metric"] for each in scaler["spec"]["metrics"] if each["type"] == "External")
    selector = ",".join(f"{key}={value}" for key, value in metric["selector"]["matchLabels"].items())
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{metric['name']}?labelSelector={quote(selector)}"
    value = json.loads(cluster.kubectl("get", "--raw", path).stdout)["items"][0]["value"]
    return int(value.removesuffix("m")) // (1000 if value.endswith("m") else 1)
