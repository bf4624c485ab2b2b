"""KEDA scales a worker pool on the length of its queue's list, in a real server behind a real Sentinel: 2, 20, 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests import tls
from tests.cluster.conftest import FIGURES, Rendered, Stacks, built
from tests.cluster.control_plane import ControlPlane, Manifest, wait_until
from tests.cluster.deployed import settle
from tests.cluster.keda import Keda
from tests.cluster.queues import Queues
from tools import build

pytestmark = pytest.mark.cluster

NAMESPACE = "keda-scaling"
POOL = "worker-default"


@pytest.fixture
def rendered(stacks: Stacks, request: pytest.FixtureRequest) -> Rendered:
    """The stack, with the changes, that a test is parametrized with."""
    stack, changes = request.param
    return stacks.render(NAMESPACE, stack, changes)


@pytest.fixture
def certificates(rendered: Rendered, tmp_path: Path) -> Path | None:
    """Those of localhost, where the stack's Redis has TLS."""
    if not any(each["kind"] == "TriggerAuthentication" and "redis-tls" in json.dumps(each) for each in rendered.manifests):
        return None
    tls.redis_server()
    return tls.Authority(tmp_path / "authority").sign(tmp_path / "certificates", ["localhost"])


@pytest.fixture
def queues(cluster: ControlPlane, rendered: Rendered, certificates: Path | None, tmp_path: Path) -> Iterator[Queues]:
    running = Queues(cluster, rendered, tmp_path, cluster.port(2), cluster.port(3), certificates)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def keda(cluster: ControlPlane) -> Iterator[Keda]:
    running = Keda(cluster, built(build.keda), NAMESPACE)
    yield running
    # Only KEDA can let its objects go.
    cluster.kubectl("delete", "namespace", NAMESPACE)
    running.stop()


def on_this_machine(scaled: Manifest, sentinel: int, exporter: str = "") -> Manifest:
    """The ScaledObject with Sentinel and exporter at their addresses here, and seconds where it waits for minutes."""
    spec: dict[str, Any] = scaled["spec"]
    for trigger in spec["triggers"]:
        if "addresses" in trigger["metadata"]:
            trigger["metadata"]["addresses"] = f"localhost:{sentinel}"
        if "url" in trigger["metadata"]:
            trigger["metadata"]["url"] = exporter
    spec["pollingInterval"] = 2
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behaviour["scaleDown"]["stabilizationWindowSeconds"] = 3
    for direction in behaviour.values():
        for policy in direction["policies"]:
            policy["periodSeconds"] = 2
    return scaled


@pytest.fixture
def watched(cluster: ControlPlane, rendered: Rendered, certificates: Path | None) -> Iterator[None]:
    """The log `workers` has every number of workers that was ever wanted, one a line."""
    cluster.apply(*(each for each in rendered.files if "scaledobject" not in each.name))
    if certificates:
        files = [f"--from-file={certificates / name}" for name in ("ca.crt", "tls.crt", "tls.key")]
        cluster.kubectl("create", "secret", "generic", "redis-tls", f"--namespace={NAMESPACE}", *files)
    only = ("deployment", POOL, f"--namespace={NAMESPACE}", "--watch", '--output=jsonpath={.spec.replicas}{"\\n"}')
    cluster.processes.start("workers", [cluster.program("kubectl"), f"--kubeconfig={cluster.kubeconfig()}", "get", *only])
    yield
    cluster.processes.stop("workers")


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    "rendered",
    [
        pytest.param(("enterprise", {}), id="in clear"),
        pytest.param(("enterprise", {"redis": {"tls": {"kind": "secret", "secret": "redis-tls"}}}), id="over TLS"),
    ],
    indirect=True,
)
def test_keda_scales_a_pool_on_its_queue_and_back(
    cluster: ControlPlane, rendered: Rendered, queues: Queues, keda: Keda, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What is rendered, but for the address and for waits: lists, database, users, Sentinel, formula, bounds, step sizes."""
    scaled = next(each for each in rendered.manifests if each["kind"] == "ScaledObject")
    path = tmp_path / "scaled.yaml"
    path.write_text(yaml.safe_dump(on_this_machine(scaled, queues.sentinel)))
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
    queues.send("default", 300)
    wait_until(lambda: scaled_to(6), "300 waiting: 6 workers", 60)
    queues.take("default", 100)
    wait_until(lambda: scaled_to(8), "300 waiting and 100 running: 8 workers", 60)
    queues.send("default", 1200)
    wait_until(lambda: scaled_to(20), "1600 waiting or running: as many workers as there may be", 60)
    queues.purge("default")
    wait_until(lambda: scaled_to(2), "none waiting and 100 running: 2 workers", 120)
    FIGURES[f"KEDA {request.node.callspec.id}, messages:workers"] = {
        "notes": " ".join(f"{seen}:{count}" for seen, count in steps)
    }
    assert list(dict.fromkeys(seen for seen, _ in steps)) == [0, 300, 400, 1600, 100]
    counts = [int(line) for line in cluster.processes.log("workers").split()]
    down = list(dict.fromkeys(counts[counts.index(20) :]))
    assert down == list(range(20, 1, -1)), "one worker goes at a time"


@pytest.mark.parametrize("rendered", [("multi-tenant", {})], indirect=True)
def test_each_of_several_pools_is_scaled_on_what_waits_and_runs_in_its_own_queue(
    cluster: ControlPlane, rendered: Rendered, queues: Queues, keda: Keda, tmp_path: Path
) -> None:
    """All pools' running tasks are in one hash; and a pool that has the exporter no more is scaled on what waits."""
    pools = ("worker-default", "worker-priority")
    cluster.apply(*(each for each in rendered.files if "scaledobject" not in each.name))
    exporter = queues.start_exporter(cluster.port(4))
    scaled = [
        on_this_machine(each, queues.sentinel, exporter) for each in rendered.manifests if each["kind"] == "ScaledObject"
    ]
    path = tmp_path / "scaled.yaml"
    path.write_text(yaml.safe_dump_all(scaled))
    cluster.apply(path)
    steps: list[str] = []

    def reach(what: str, *wanted: int, seconds: float = 60) -> None:
        wait_until(lambda: tuple(workers(cluster, pool) for pool in pools) == wanted, f"{what}: {wanted}", seconds)
        steps.append(f"{what} {wanted[0]}+{wanted[1]}")

    reach("idle", 1, 1)
    settle(cluster, NAMESPACE)
    queues.take("priority", 150)
    reach("150 of priority run", 1, 3)
    queues.send("default", 250)
    queues.take("default", 50)
    reach("250 of default wait and 50 run", 6, 3)
    assert [seen_by_keda(cluster, pool) for pool in pools] == [300, 150]
    queues.stop_exporter()
    reach("nobody knows what runs", 5, 1, seconds=120)
    queues.send("priority", 200)
    reach("200 of priority wait", 5, 4, seconds=60)
    queues.stop()
    wait_until(lambda: not any(is_scaling(cluster, pool) for pool in pools), "the HPAs know nothing of the queues", 120)
    reach("the broker is away", 5, 4)
    FIGURES["KEDA, workers of two pools"] = {"notes": "; ".join(steps)}


def workers(cluster: ControlPlane, pool: str = POOL) -> int:
    return cluster.object("deployment", pool, NAMESPACE)["spec"]["replicas"]


def is_scaling(cluster: ControlPlane, pool: str) -> bool:
    """Whether the pool's HPA has what it needs to decide."""
    scaler = next(each for each in cluster.get("hpa", NAMESPACE) if each["spec"]["scaleTargetRef"]["name"] == pool)
    return any(each["type"] == "ScalingActive" and each["status"] == "True" for each in scaler["status"]["conditions"])


def seen_by_keda(cluster: ControlPlane, pool: str = POOL) -> int:
    """What KEDA answers now to the HPA that it made, as the API server passes it on."""
    scaler = next(each for each in cluster.get("hpa", NAMESPACE) if each["spec"]["scaleTargetRef"]["name"] == pool)
    metric = next(each["external"]["metric"] for each in scaler["spec"]["metrics"] if each["type"] == "External")
    selector = ",".join(f"{key}={value}" for key, value in metric["selector"]["matchLabels"].items())
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{metric['name']}?labelSelector={quote(selector)}"
    value = json.loads(cluster.kubectl("get", "--raw", path).stdout)["items"][0]["value"]
    return int(value.removesuffix("m")) // (1000 if value.endswith("m") else 1)
