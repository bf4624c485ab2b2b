"""An HPA scales a pool on its queue by way of the real exporter, Prometheus and metrics adapter: 2, 20, 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from components.autoscaler import QUEUE_METRICS
from tests.cluster.conftest import FIGURES, Rendered, Stacks, built
from tests.cluster.control_plane import ControlPlane, Manifest, flags, wait_until
from tests.cluster.deployed import identity, settle
from tests.cluster.queues import Queues
from tools import build

pytestmark = pytest.mark.cluster

NAMESPACE = "adapter-scaling"
POOL = "worker-default"
GROUP = ("external.metrics.k8s.io", "v1beta1", "prometheus-adapter")


@pytest.fixture
def rendered(stacks: Stacks) -> Rendered:
    return stacks.render(NAMESPACE, "enterprise", {"workers": {"scaling": {"kind": "hpa"}}})


@pytest.fixture
def queues(cluster: ControlPlane, rendered: Rendered, tmp_path: Path) -> Iterator[Queues]:
    running = Queues(cluster, rendered, tmp_path, cluster.port(2), cluster.port(3))
    try:
        running.start()
        running.start_exporter(cluster.port(4))
        yield running
    finally:
        running.stop()


@pytest.fixture
def prometheus(cluster: ControlPlane, queues: Queues, tmp_path: Path) -> Iterator[str]:
    """URL of a Prometheus that scrapes the exporter, under the label of the stack's namespace as discovery gives it."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed (apt-get install prometheus)")
    target = {"targets": [f"127.0.0.1:{cluster.port(4)}"], "labels": {"namespace": NAMESPACE}}
    config = tmp_path / "prometheus.yml"
    config.write_text(
        yaml.safe_dump(
            {"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "exporter", "static_configs": [target]}]}
        )
    )
    address = f"127.0.0.1:{cluster.port(1)}"
    settings = {
        "config.file": config,
        "storage.tsdb.path": tmp_path / "prometheus",
        "web.listen-address": address,
    }
    cluster.processes.start("prometheus", [program, *flags(settings)])
    yield f"http://{address}"
    cluster.processes.stop("prometheus")


@pytest.fixture
def adapter(cluster: ControlPlane, rendered: Rendered, prometheus: str, tmp_path: Path) -> Iterator[None]:
    """The metrics adapter with the stack's rules and no others, as the server of external metrics."""
    values = next(each for each in rendered.manifests if identity(each) == "ConfigMap/exporter-adapter-rules")
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"externalRules": yaml.safe_load(values["data"]["values.yaml"])["rules"]["external"]}))
    config = cluster.kubeconfig()
    settings = {
        "prometheus-url": prometheus,
        "config": rules,
        # It looks for metrics every ten minutes where nothing is said.
        "metrics-relist-interval": "2s",
        "lister-kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "secure-port": cluster.port(0),
        "tls-cert-file": cluster.key("server.crt"),
        "tls-private-key-file": cluster.key("server.key"),
    }
    cluster.processes.start("adapter", [built(build.adapter) / "adapter", *flags(settings)])
    cluster.aggregate(*GROUP, cluster.port(0))
    yield
    cluster.forget(*GROUP)
    cluster.processes.stop("adapter")
    cluster.kubectl("delete", "namespace", NAMESPACE)


def in_seconds(scaler: Manifest) -> Manifest:
    """The HPA with seconds where it waits for minutes."""
    behaviour = scaler["spec"]["behavior"]
    behaviour["scaleDown"]["stabilizationWindowSeconds"] = 3
    for direction in behaviour.values():
        for policy in direction["policies"]:
            policy["periodSeconds"] = 2
    return scaler


@pytest.mark.usefixtures("adapter")
def test_an_hpa_scales_a_pool_on_what_prometheus_has_of_its_queue(
    cluster: ControlPlane, rendered: Rendered, queues: Queues, tmp_path: Path
) -> None:
    """What is rendered, but for waits: names, labels and units agree from the broker to the HPA; no metric, no change."""
    manifests = [
        in_seconds(each) if identity(each) == f"HorizontalPodAutoscaler/{POOL}-scaler" else each
        for each in rendered.manifests
    ]
    path = tmp_path / "stack.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    cluster.apply(path)
    settle(cluster, NAMESPACE, 120)
    steps: list[tuple[int | None, int]] = []

    def scaled_to(wanted: int, seen: int | None) -> bool:
        step = (seen_by_hpa(cluster), workers(cluster))
        if not steps or steps[-1] != step:
            steps.append(step)
        return step == (seen, wanted)

    assert scaled_to(2, 0)
    queues.send("default", 300)
    wait_until(lambda: scaled_to(6, 300), "300 waiting: 6 workers", 90)
    queues.take("default", 100)
    wait_until(lambda: scaled_to(8, 400), "300 waiting and 100 running: 8 workers", 90)
    queues.send("default", 1200)
    wait_until(lambda: scaled_to(20, 1600), "1600 waiting or running: as many workers as there may be", 90)
    queues.stop_exporter()
    queues.purge("default")
    wait_until(lambda: not scaling_active(cluster), "the HPA has no metric of the queue", 60)
    assert scaled_to(20, None), "an exporter that is gone is no reason to take workers away"
    queues.start_exporter(cluster.port(4))
    wait_until(lambda: scaled_to(2, 100), "none waiting and 100 running: 2 workers", 150)
    FIGURES["HPA by Prometheus, messages seen:workers"] = {"notes": " ".join(f"{seen}:{count}" for seen, count in steps)}


def workers(cluster: ControlPlane) -> int:
    return cluster.object("deployment", POOL, NAMESPACE)["spec"]["replicas"]


def scaling_active(cluster: ControlPlane) -> bool:
    """Whether the HPA could read every metric of the queue when it looked last."""
    scaler = cluster.object("hpa", f"{POOL}-scaler", NAMESPACE)
    current = {
        each["external"]["metric"]["name"] for each in scaler["status"]["currentMetrics"] if each["type"] == "External"
    }
    return current >= set(QUEUE_METRICS)


def seen_by_hpa(cluster: ControlPlane) -> int | None:
    """What the adapter answers to the HPA's question about messages, as the API server passes it on; None: nothing."""
    selector = quote("queue_name in (default)")
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{QUEUE_METRICS[0]}?labelSelector={selector}"
    answer = cluster.kubectl("get", "--raw", path, check=False)
    if answer.returncode != 0:
        # It forgets a metric that Prometheus has no more.
        assert "could not find the metric" in answer.stderr
        return None
    items = json.loads(answer.stdout)["items"]
    assert len(items) <= 1
    return int(items[0]["value"]) if items else None
