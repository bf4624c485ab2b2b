"""The stack `minimal` in real pods: its servers, its init job, web and worker, and a query through the web Service."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.client import SupersetClient
from tests.cluster import images
from tests.cluster.conftest import FIGURES, Stacks, built
from tests.cluster.control_plane import ControlPlane, wait_until
from tests.cluster.deployed import settle
from tests.cluster.real_node import RealNode, why_not
from tools import build

pytestmark = pytest.mark.cluster

NAMESPACE = "real"
#: The metadata database, taken for an analytic one too; users reach the web tier over plain HTTP here.
SETTINGS: dict[str, Any] = {
    "web": {"secure_cookies": False},
    "databases": {"warehouse": {}},
    "database_uris": {"warehouse": {"secure": "given below"}},
}


@dataclass(frozen=True)
class Platform:
    """The running stack, and its Secrets' values by key."""

    cluster: ControlPlane
    secrets: dict[str, str]

    def redis(self, *command: str, operator: bool = False) -> str:
        """What redis-cli in the server's pod says, as the clients' user or the operator."""
        login = ("--user", "operator", "--pass", self.secrets["operator-password"], "--no-auth-warning") if operator else ()
        arguments = ("exec", "redis-0", f"--namespace={NAMESPACE}", "--container=redis", "--", "redis-cli", *login, *command)
        return self.cluster.kubectl(*arguments).stdout.strip()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """A control plane of its own with a real node."""
    if reason := why_not():
        pytest.skip(reason)
    cluster = ControlPlane(tmp_path_factory.mktemp("real"), built(build.cluster))
    running = RealNode(cluster)
    # Also a run that is told to end leaves nothing behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        running.start()
        yield running
    finally:
        running.stop()
        cluster.stop()


@pytest.fixture(scope="module")
def platform(node: RealNode, stacks: Stacks) -> Platform:
    secrets_file = stacks.secrets_file(NAMESPACE)
    stacks.render(NAMESPACE, "minimal", SETTINGS)
    documents = list(yaml.safe_load_all(secrets_file.read_text()))
    values = {key: value for each in documents for key, value in each["stringData"].items()}
    uri = f"postgresql+psycopg2://superset:{values['POSTGRES_PASSWORD']}@postgres:5432/superset"
    for each in documents:
        each["stringData"] |= {key: uri for key in each["stringData"] if key == "DATABASE_URI_WAREHOUSE"}
    secrets_file.write_text(yaml.safe_dump_all(documents))
    rendered = stacks.render(NAMESPACE, "minimal", SETTINGS)
    started = time.monotonic()
    for name, image in (("redis", images.valkey()), ("postgres", images.postgres()), ("superset", images.superset())):
        node.load(image, image_of(rendered.files, name))
    loaded = time.monotonic()
    node.cluster.apply(*rendered.files)
    settle(node.cluster, NAMESPACE, 400)
    FIGURES["minimal on a real node"] = {
        "objects": len(rendered.manifests),
        "at rest": f"{time.monotonic() - loaded:.0f} s",
        "kubectl": f"images made and imported in {loaded - started:.0f} s",
    }
    return Platform(node.cluster, values)


def image_of(files: tuple[Path, ...], container: str) -> str:
    """The image that the rendered containers of a server, or of Superset's processes, name."""
    names = {"redis": "redis", "postgres": "postgres", "superset": "web"}
    for path in files:
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest["kind"] in ("StatefulSet", "Deployment") and manifest["metadata"]["name"] == names[container]:
                return manifest["spec"]["template"]["spec"]["containers"][0]["image"]
    raise AssertionError(f"nothing rendered runs {container}")


def test_an_asynchronous_query_is_answered_through_the_web_service(platform: Platform) -> None:
    service = platform.cluster.object("service", "web", NAMESPACE)["spec"]
    url = f"http://{service['clusterIP']}:{service['ports'][0]['port']}"
    with SupersetClient(url, username="admin", password=platform.secrets["ADMIN_PASSWORD"]) as client:
        run = client.run("SELECT 6 * 7 AS answer", client.database_id("warehouse"))
    assert run.result.rows == [{"answer": 42}]
    worker = platform.cluster.kubectl("logs", "deployment/worker-default", f"--namespace={NAMESPACE}").stdout
    assert "sql_lab.get_sql_results" in worker
    assert "succeeded" in worker


def test_redis_keeps_clients_from_administration_and_logs_every_write(platform: Platform) -> None:
    assert platform.redis("config", "get", "appendonly").startswith("NOPERM")
    assert platform.redis("flushall").startswith("NOPERM")
    assert platform.redis("config", "get", "appendonly", operator=True).split() == ["appendonly", "yes"]
    assert platform.redis("config", "get", "maxmemory-policy", operator=True).split()[1] == "volatile-lru"


def test_what_redis_holds_survives_its_pod(platform: Platform) -> None:
    platform.redis("rpush", "kept", "one", "two")
    before = platform.cluster.object("pod", "redis-0", NAMESPACE)["metadata"]["uid"]
    platform.cluster.kubectl("delete", "pod", "redis-0", f"--namespace={NAMESPACE}", "--grace-period=0", "--force")
    wait_until(lambda: _replaced(platform.cluster, "redis-0", before), "another redis-0 is ready", 120, every=1)
    assert platform.redis("lrange", "kept", "0", "-1").split() == ["one", "two"]


def _replaced(cluster: ControlPlane, name: str, before: str) -> bool:
    pods = [each for each in cluster.get("pods", NAMESPACE) if each["metadata"]["name"] == name]
    return any(
        pod["metadata"]["uid"] != before
        and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
        for pod in pods
    )
