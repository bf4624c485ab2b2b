"""The stack `minimal` in real pods: its servers, its init job, web and worker, and a query through the web Service."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import yaml

from client.errors import ClientError
from client.superset_client import SupersetClient
from components.workers import HEARTBEAT, HUNG_GRACE_SECONDS
from tests.cluster import images
from tests.cluster.conftest import FIGURES, Stacks
from tests.cluster.control_plane import ControlPlane, wait_until
from tests.cluster.deployed import settle
from tests.cluster.real_node import RealNode
from topology import stack_file

pytestmark = pytest.mark.cluster

NAMESPACE = "real"
#: The metadata database, taken for an analytic one too; users reach the web tier over plain HTTP here.
SETTINGS: dict[str, Any] = {
    "images": {name: f"localhost/{name}:1" for name in ("redis", "postgres", "superset")},
    "web": {"secure_cookies": False},
    "databases": {"warehouse": {"cidrs": ["10.0.0.0/8"], "ports": [5432]}},
    "database_uris": {"warehouse": {"secure": "given below"}},
    # A team's own Superset: a flag, a setting, a module with a secret of its own, and an identity provider that nobody asks here.
    "superset": {
        "feature_flags": {"ENABLE_TEMPLATE_PROCESSING": True},
        "settings": {"APP_NAME": "Acme"},
        "config_module": "../acme",
        "env": {"ACME_BILLING_TOKEN": {}},
        "sign_on": {"oidc": {"issuer": "https://login.example.com", "client_id": "superset"}, "cidrs": ["10.30.0.0/24"]},
    },
    "superset_env": {"ACME_BILLING_TOKEN": {"secure": "given below"}},
    "sign_on_secret": {"secure": "given below"},
}


@dataclass(frozen=True)
class Platform:
    """The running stack, and its Secrets' values by key."""

    cluster: ControlPlane
    secrets: dict[str, str]

    def redis(self, *command: str, operator: bool = False) -> str:
        """What redis-cli in the server's pod says, as the broker's user or the operator."""
        user = "operator" if operator else "broker"
        login = ("--user", user, "--pass", self.secrets[f"{user}-password"], "--no-auth-warning")
        arguments = ("exec", "redis-0", f"--namespace={NAMESPACE}", "--container=redis", "--", "redis-cli", *login, *command)
        return self.cluster.kubectl(*arguments).stdout.strip()

    def pod(self, name: str) -> str:
        """The pod's unique id; empty where there is none of that name."""
        pods = self.cluster.get("pods", NAMESPACE)
        return next((each["metadata"]["uid"] for each in pods if each["metadata"]["name"] == name), "")

    def web_url(self) -> str:
        """Where the web tier is reached through its Service."""
        service = self.cluster.object("service", "web", NAMESPACE)["spec"]
        return f"http://{service['clusterIP']}:{service['ports'][0]['port']}"


@pytest.fixture(scope="module")
def platform(node: RealNode, stacks: Stacks) -> Iterator[Platform]:
    secrets_file = stacks.secrets_file(NAMESPACE)
    shutil.copytree(stack_file.folder().parent / "docs" / "examples" / "acme", stacks.folder / "acme", dirs_exist_ok=True)
    stacks.render(NAMESPACE, "minimal", SETTINGS)
    documents = list(yaml.safe_load_all(secrets_file.read_text()))
    values = {key: value for each in documents for key, value in each["stringData"].items()}
    uri = f"postgresql+psycopg2://superset:{values['POSTGRES_PASSWORD']}@postgres:5432/superset"
    given = {"DATABASE_URI_WAREHOUSE": uri, "ACME_BILLING_TOKEN": "t0ken", "SIGN_ON_SECRET": "client-s3cret"}
    for each in documents:
        each["stringData"] |= {key: given[key] for key in each["stringData"] if key in given}
    secrets_file.write_text(yaml.safe_dump_all(documents))
    rendered = stacks.render(NAMESPACE, "minimal", SETTINGS)
    started = time.monotonic()
    for name, image in (("redis", images.valkey()), ("postgres", images.postgres()), ("superset", images.superset())):
        node.load(image, SETTINGS["images"][name])
    loaded = time.monotonic()
    node.cluster.apply(*rendered.files)
    settle(node.cluster, NAMESPACE, 400)
    FIGURES["minimal on a real node"] = {
        "objects": len(rendered.manifests),
        "at rest": f"{time.monotonic() - loaded:.0f} s",
        "notes": f"images made and imported in {loaded - started:.0f} s",
    }
    yield Platform(node.cluster, values)
    # Its processes would take what the tests after these need.
    node.cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_an_asynchronous_query_is_answered_through_the_web_service(platform: Platform) -> None:
    with SupersetClient(platform.web_url(), username="admin", password=platform.secrets["ADMIN_PASSWORD"]) as client:
        run = client.run("SELECT 6 * 7 AS answer", client.database_id("warehouse"))
    assert run.result.rows == [{"answer": 42}]
    worker = platform.cluster.kubectl("logs", "deployment/worker-default", f"--namespace={NAMESPACE}").stdout
    assert "sql_lab.get_sql_results" in worker
    assert "succeeded" in worker


def test_the_pods_are_the_teams_own_superset(platform: Platform) -> None:
    """A page and a template's function of the module, its mutator in what a worker executed, and the way to log in."""
    with SupersetClient(platform.web_url(), username="admin", password=platform.secrets["ADMIN_PASSWORD"]) as client:
        run = client.run("SELECT '{{ fiscal_year(2026) }}' AS year", client.database_id("warehouse"))
        executed = client._session.call("GET", f"/api/v1/query/{run.status.id}").json()["result"]["executed_sql"]
    assert run.result.rows == [{"year": "FY2027"}]
    assert "/* acme */" in executed
    assert httpx.get(f"{platform.web_url()}/acme/health", timeout=60).text == "acme"
    assert "Acme" in (page := httpx.get(f"{platform.web_url()}/login/", timeout=60).text)
    assert "oidc" in page


def test_nothing_of_superset_started_before_the_init_job_was_through(platform: Platform) -> None:
    """All was applied at once: each pod waited for the metadata database, and none had to be started again."""
    pods = platform.cluster.get("pods", NAMESPACE)
    waited = [each for each in pods if [c["name"] for c in each["spec"].get("initContainers", [])] == ["ready"]]
    assert {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in waited} == {
        "web",
        "worker-default",
        "beat",
    }
    job = next(each for each in pods if "batch.kubernetes.io/job-name" in each["metadata"]["labels"])
    begun = job["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"]
    for pod in waited:
        name = pod["metadata"]["name"]
        said = platform.cluster.kubectl("logs", name, f"--namespace={NAMESPACE}", "--container=ready").stdout
        assert "ready: waits for the metadata database: " in said, name
        (process,) = pod["status"]["containerStatuses"]
        assert process["restartCount"] == 0, name
        assert process["state"]["running"]["startedAt"] > begun, name


def test_redis_keeps_clients_from_administration_and_logs_every_write(platform: Platform) -> None:
    assert platform.redis("config", "get", "appendonly").startswith("NOPERM")
    assert platform.redis("flushall").startswith("NOPERM")
    assert platform.redis("config", "get", "appendonly", operator=True).split() == ["appendonly", "yes"]
    assert platform.redis("config", "get", "maxmemory-policy", operator=True).split()[1] == "volatile-lru"


def test_what_redis_holds_survives_its_pod(platform: Platform) -> None:
    platform.redis("rpush", "unacked-kept", "one", "two")
    before = platform.pod("redis-0")
    platform.cluster.kubectl("delete", "pod", "redis-0", f"--namespace={NAMESPACE}", "--grace-period=0", "--force")
    wait_until(lambda: platform.pod("redis-0") not in ("", before), "there is another redis-0")
    settle(platform.cluster, NAMESPACE, 120)
    assert platform.redis("lrange", "unacked-kept", "0", "-1").split() == ["one", "two"]


def test_a_rollout_of_the_web_tier_drops_no_request(platform: Platform) -> None:
    url, ended = f"{platform.web_url()}/login/", threading.Event()
    answers: list[str] = []

    def ask() -> None:
        while not ended.is_set():
            try:
                answers.append(str(httpx.get(url, timeout=30).status_code))
            except httpx.HTTPError as error:
                answers.append(repr(error))
            time.sleep(0.05)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    try:
        before = {each["metadata"]["uid"] for each in platform.cluster.get("pods", NAMESPACE)}
        platform.cluster.kubectl("rollout", "restart", "deployment/web", f"--namespace={NAMESPACE}")
        platform.cluster.kubectl("rollout", "status", "deployment/web", f"--namespace={NAMESPACE}", "--timeout=240s")

        def old_ones_are_gone() -> bool:
            pods = platform.cluster.get("pods", NAMESPACE)
            web = [each for each in pods if each["metadata"]["labels"].get("app.kubernetes.io/component") == "web"]
            return bool(web) and not before & {each["metadata"]["uid"] for each in web}

        wait_until(old_ones_are_gone, "the old web pod is gone", 240)
    finally:
        ended.set()
        for thread in asking:
            thread.join(60)
    FIGURES["web rolled on a real node"] = {"notes": f"{len(answers)} requests, {dict(Counter(answers))}"}
    assert len(answers) > 100
    assert set(answers) == {"200"}


@dataclass
class Clients:
    """People who ask one query after the other, and what they were told."""

    platform: Platform
    count: int
    rows: list[int] = field(default_factory=list[int])
    #: When, and in which words, a query was refused or failed.
    told: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    @contextmanager
    def asking(self) -> Generator[None]:
        """They ask while the block runs, and each ends what it has asked."""
        ended = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(number, ended)) for number in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join(180)
            assert not any(thread.is_alive() for thread in threads), "a client waits for ever"

    def _ask(self, number: int, ended: threading.Event) -> None:
        with SupersetClient(
            self.platform.web_url(), username="admin", password=self.platform.secrets["ADMIN_PASSWORD"]
        ) as client:
            database = wait_until(lambda: _warehouse(client), "a client is logged in", 180)
            while not ended.is_set():
                try:
                    run = client.run(f"SELECT {number} AS me, pg_sleep(0.2)", database)
                    self.rows.append(run.result.rows[0]["me"])
                except ClientError as error:
                    self.told.append((time.monotonic(), str(error)))


def _warehouse(client: SupersetClient) -> int:
    """The database's id; 0 where the web tier does not say yet: log-ins have a limit a second."""
    try:
        return client.database_id("warehouse")
    except ClientError:
        return 0


def _rolled(platform: Platform, what: str) -> None:
    platform.cluster.kubectl("rollout", "restart", what, f"--namespace={NAMESPACE}")
    platform.cluster.kubectl("rollout", "status", what, f"--namespace={NAMESPACE}", "--timeout=600s")


@pytest.mark.further
@pytest.mark.parametrize("what", ["deployment/web", "deployment/worker-default", "deployment/beat"])
def test_twenty_clients_do_not_feel_a_rollout(platform: Platform, what: str) -> None:
    clients = Clients(platform, 20)
    with clients.asking():
        wait_until(lambda: len(set(clients.rows)) == clients.count, "each client has had an answer", 300)
        _rolled(platform, what)
        before = len(clients.rows)
        wait_until(lambda: len(clients.rows) > before + clients.count, "all of them go on", 300)
    FIGURES[f"{what}, rolled under 20 clients"] = {"notes": f"{len(clients.rows)} queries answered, {len(clients.told)} not"}
    assert [words for _, words in clients.told] == []


@pytest.mark.further
@pytest.mark.parametrize("what", ["statefulset/redis", "statefulset/postgres"])
def test_a_single_server_that_restarts_is_told_of_and_nothing_is_lost(platform: Platform, what: str) -> None:
    """Each accepted query ends: `Clients` waits for it. Who asks in between is refused in words, and everybody goes on."""
    clients = Clients(platform, 20)
    with clients.asking():
        wait_until(lambda: len(set(clients.rows)) == clients.count, "each client has had an answer", 300)
        _rolled(platform, what)
        before = len(clients.rows)
        wait_until(lambda: len(clients.rows) > before + clients.count, "all of them go on", 300)
    times = [at for at, _ in clients.told]
    away = max(times) - min(times) if times else 0.0
    words = Counter(re.sub(r"[0-9]+", "N", said)[:160] for _, said in clients.told)
    FIGURES[f"{what}, restarted under 20 clients"] = {
        "notes": f"{len(clients.rows)} queries answered, {len(clients.told)} told otherwise within {away:.0f} s: {dict(words)}"
    }
    assert not [said for said in words if "Traceback" in said or "still runs" in said.lower()]


def test_a_worker_whose_event_loop_hangs_is_found_and_started_again(platform: Platform, node: RealNode) -> None:
    def worker() -> dict[str, Any]:
        pods = platform.cluster.get("pods", NAMESPACE)
        return next(
            each for each in pods if each["metadata"]["labels"].get("app.kubernetes.io/component") == "worker-default"
        )

    pod = worker()
    name = pod["metadata"]["name"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0, "the probe takes a worker that lives for a dead one"
    node.signal(pod, "SIGSTOP")
    # Its last sign of life was long ago, instead of waiting for that long.
    old = ("touch", "-d", "@0", HEARTBEAT)
    platform.cluster.kubectl("exec", name, f"--namespace={NAMESPACE}", "--container=worker", "--", *old)

    def found() -> bool:
        events = platform.cluster.get("events", NAMESPACE)
        return any(
            each["reason"] == "Killing" and each["involvedObject"]["name"] == name and "liveness" in each["message"]
            for each in events
        )

    wait_until(found, "the kubelet sees that it hangs", 150)
    # It does not hear SIGTERM either, and the pod's own period is for workers that finish what they run.
    assert pod["spec"]["terminationGracePeriodSeconds"] > HUNG_GRACE_SECONDS + 90
    wait_until(
        lambda: worker()["status"]["containerStatuses"][0]["restartCount"] == 1,
        "it is started again",
        HUNG_GRACE_SECONDS + 60,
    )
    settle(platform.cluster, NAMESPACE, 180)
