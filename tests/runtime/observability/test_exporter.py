"""The exporter of queue metrics, against a real broker with the pods' access rules and what Celery itself puts there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from celery import Celery
from kombu import Consumer
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import ConnectionError as NoBroker
from redis import Redis

from local import binaries
from runtime.broker.reserved_tasks import Service
from runtime.config import render
from runtime.environment import redis_databases as redis_config
from runtime.environment.counters import field
from runtime.environment.redis_clients import client
from runtime.environment.secrets import ConfigurationError
from runtime.observability import exporter, known_series
from runtime.observability.exporter import Broker, QueueMetrics, Reading, ServerLoad, ServerMetrics
from runtime.observability.shared_metrics import Shared, SharedMetrics, served
from runtime.observability.task_metrics import increments
from tests.runtime.stacks import REDIS_PASSWORDS, STACKS, environment, one_server, topology
from topology import commands, metric_names, redis_acl
from topology.histograms import task_buckets
from topology.model import RedisInstance, Topology

REDIS_PASSWORD = REDIS_PASSWORDS["broker"]

PROJECT = Path(__file__).resolve().parents[3]
#: What is put into the broker: messages by queue and priority. `tenant-b` gets none, and nothing ever serves any of them.
SENT = {("default", None): 7, ("default", 3): 2, ("default", 9): 4, ("priority", 6): 3, ("tenant-a", 0): 5}
#: How many of them a consumer takes and holds.
HELD = {"default": 4, "tenant-a": 2}
WAITING = {"default": 9, "priority": 3, "tenant-a": 3, "tenant-b": 0}
IN_FLIGHT = {"default": 4, "priority": 0, "tenant-a": 2, "tenant-b": 0}
QUEUE_METRICS = {metric_names.DEPTH, metric_names.IN_FLIGHT, metric_names.MESSAGES, metric_names.OLDEST_IN_FLIGHT}


def free_port(taken: set[int] = set()) -> int:  # noqa: B006 - remembered on purpose
    # Every second one: a topology's second Redis has the port after the first's.
    for port in range(19500, 19700, 2):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in taken and probe.connect_ex(("127.0.0.1", port)) != 0:
                taken.add(port)
                return port
    raise AssertionError("no free port")


def shared_instance() -> RedisInstance:
    """A server that carries everything of the stack: where the broker's user is held to the keys that it needs."""
    return one_server()


@dataclass
class Server:
    """A Valkey with the access rules of a pod's."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.folder / "users.acl").write_text(redis_acl.server_acl(shared_instance(), REDIS_PASSWORDS, "operator-password"))
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"aclfile {self.folder}/users.acl",
            "appendonly yes",
        ]
        (self.folder / "valkey.conf").write_text("\n".join(lines))
        command = [str(binaries.valkey_server()), str(self.folder / "valkey.conf")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, "Valkey answers", 20)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(20)


def until(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path, free_port())
    found.start()
    yield found
    found.kill()


@pytest.fixture
def plan(server: Server) -> Topology:
    return topology(
        "multi-tenant",
        platform="local",
        local={"web_port": free_port(), "redis_port": server.port, "exporter_port": free_port()},
    )


def celery(plan: Topology) -> Celery:
    """Celery with the configuration that Superset's processes have, but for what needs Superset.

    With all of kombu's priorities: the stack sends none, and what somebody else sends with one counts too.
    """
    config = cast("dict[str, Any]", render(plan, environment(plan))["CELERY_CONFIG"])
    app = Celery("test")
    app.conf.update(
        {key: value for key, value in config.items() if key not in ("beat_schedule", "imports", "result_backend")}
    )
    app.conf.broker_transport_options = {**config["broker_transport_options"], "priority_steps": [0, 3, 6, 9]}
    return app


def broker(plan: Topology) -> Broker:
    return exporter.broker(plan, environment(plan))


def send(app: Celery) -> None:
    for (queue, priority), count in SENT.items():
        for _ in range(count):
            app.send_task("some.task", kwargs={"sql": "SELECT 'é'"}, queue=queue, priority=priority, ignore_result=True)


@contextmanager
def held(app: Celery) -> Generator[None]:
    """A consumer that has taken `HELD` and acknowledges none; when it ends it gives them back."""
    with app.connection_for_read() as connection:
        for queue, count in HELD.items():
            taken: list[object] = []
            channel = connection.channel()
            channel.basic_qos(0, count, False)

            def take(body: object, message: object, taken: list[object] = taken) -> None:
                taken.append(message)

            Consumer(channel, [app.amqp.queues[queue]], callbacks=[take], accept=["json"]).consume()
            while len(taken) < count:
                connection.drain_events(timeout=10)
        yield


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def by_queue(found: Mapping[str, Metric], name: str) -> dict[str, float]:
    samples = found[name].samples
    assert {key for sample in samples for key in sample.labels} == {"queue_name"}
    return {sample.labels["queue_name"]: sample.value for sample in samples}


def wrong(look: Reading) -> list[str]:
    """In what a look differs from what Celery put into the broker."""
    assert look.oldest_seconds is not None
    found = [f"waiting {dict(look.waiting)}"] if look.waiting != WAITING else []
    if look.in_flight != IN_FLIGHT:
        found.append(f"in flight {look.in_flight}")
    if {queue for queue, seconds in look.oldest_seconds.items() if 0 < seconds < 60} != set(HELD):
        found.append(f"oldest {look.oldest_seconds}")
    return found


def test_a_look_tells_queues_priorities_and_states_apart(plan: Topology) -> None:
    app = celery(plan)
    looking = broker(plan)
    idle = looking.read()
    none = dict.fromkeys(WAITING, 0.0)
    assert idle == Reading(dict.fromkeys(WAITING, 0), dict.fromkeys(WAITING, 0), none, none)
    send(app)
    with held(app):
        assert wrong(looking.read()) == []
        # From memory now: the bodies are not read again.
        assert wrong(looking.read()) == []
    given_back = looking.read()
    assert given_back.waiting == Counter(WAITING) + Counter(IN_FLIGHT) | {"tenant-b": 0}
    assert given_back.in_flight == dict.fromkeys(WAITING, 0)


#: Mistakes that the exporter could have, as what to set in its module.
MISTAKES: dict[str, dict[str, object]] = {
    "one list a queue": {"PRIORITY_SUFFIXES": ("",)},
    "a priority forgotten": {"PRIORITY_SUFFIXES": exporter.PRIORITY_SUFFIXES[:-1]},
    "another separator": {"PRIORITY_SUFFIXES": ("", ":3", ":6", ":9")},
    "another hash": {"UNACKNOWLEDGED": "unack"},
    "another index": {"DELIVERED_AT": "unacked"},
    "the exchange's place": {"queue_of": lambda message: ""},
    "all on one queue": {"queue_of": lambda message: "default"},
}


@pytest.mark.parametrize("mistake", ["a queue misspelt", "another prefix", *MISTAKES])
def test_a_planted_mistake_is_seen(mistake: str, plan: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    app = celery(plan)
    send(app)
    with held(app):
        assert wrong(broker(plan).read()) == []
        connection = client(redis_config.located(plan, "broker", REDIS_PASSWORD))
        match mistake:
            case "a queue misspelt":
                looking = Broker(connection, "", ["defualt", *plan.celery.queues[1:]])
            case "another prefix":
                looking = Broker(connection, "superset:", plan.celery.queues)
            case _:
                looking = broker(plan)
                for name, value in MISTAKES[mistake].items():
                    monkeypatch.setattr(exporter, name, value)
        with suppress(exporter.RedisError):
            assert wrong(looking.read())


class Counting:
    """A connection that counts the messages that are read through it, and takes as long as it is told to."""

    def __init__(self, connection: Any, seconds: float = 0) -> None:
        self._connection, self._seconds, self.read = connection, seconds, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def hmget(self, key: str, tags: list[bytes]) -> Any:
        self.read += len(tags)
        time.sleep(self._seconds)
        return self._connection.hmget(key, tags)


def test_each_message_in_flight_is_read_once_and_within_bounds(plan: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = client(redis_config.located(plan, "broker", REDIS_PASSWORD))
    since = time.time() - 100
    tags = {f"tag-{number}": since for number in range(250)}
    connection.zadd("unacked_index", tags)
    connection.hset("unacked", mapping=dict.fromkeys(tags, '[{"body": "x"}, "default", "default"]'))
    connection.hset(
        "unacked", mapping={"tag-0": "no JSON", "tag-1": '[{}, "gone", "a queue of former times"]', "tag-3": "12"}
    )
    connection.hdel("unacked", "tag-2")
    counting = Counting(connection)
    looking = Broker(cast(Any, counting), "", plan.celery.queues)
    first = looking.read()
    assert (first.in_flight or {})["default"] == 246
    assert 100 <= (first.oldest_seconds or {})["default"] <= time.time() - since
    assert counting.read == 250
    looking.read()
    # The one whose message is not there is looked for again.
    assert counting.read == 251

    slow = Broker(cast(Any, Counting(connection, seconds=0.05)), "", plan.celery.queues)
    monkeypatch.setattr(exporter, "MOST_SECONDS", 0.01)
    looks = [slow.read().in_flight for _ in range(3)]
    assert looks[:2] == [None, None]
    assert looks[2] == first.in_flight

    monkeypatch.setattr(exporter, "MOST_IN_FLIGHT", 249)
    connection.rpush("default", "waits")
    bounded = looking.read()
    assert bounded.waiting == {**dict.fromkeys(plan.celery.queues, 0), "default": 1}
    assert (bounded.in_flight, bounded.oldest_seconds) == (None, None)
    # What is no message, or of another sender, does not say since when it waits.
    assert bounded.oldest_waiting == dict.fromkeys(plan.celery.queues, 0.0)
    registry = CollectorRegistry()
    registry.register(QueueMetrics(looking.read, print))
    found = set(families(generate_latest(registry).decode()))
    assert found & {*QUEUE_METRICS, metric_names.OLDEST_WAITING} == {metric_names.DEPTH, metric_names.OLDEST_WAITING}


def test_the_age_of_what_waits_counts_from_its_sending_and_over_every_priority(plan: Topology) -> None:
    app = celery(plan)
    now = time.time()
    for priority, age in ((None, 40), (9, 90), (3, 60)):
        headers = {metric_names.SENT_HEADER: f"{now - age:.3f}"}
        app.send_task("some.task", queue="default", priority=priority, headers=headers, ignore_result=True)
    # By a clock that is ahead.
    app.send_task("some.task", queue="tenant-a", headers={metric_names.SENT_HEADER: f"{now + 900:.3f}"}, ignore_result=True)
    found = dict(broker(plan).read().oldest_waiting)
    assert 90 <= found.pop("default") < 90 + time.time() - now + 1
    assert found == {"priority": 0.0, "tenant-a": 0.0, "tenant-b": 0.0}


def test_the_server_tells_its_memory_to_the_brokers_user(server: Server, plan: Topology) -> None:
    with Redis(port=server.port, username="operator", password="operator-password") as operator:
        operator.config_set("maxmemory", "64mb")
    load = exporter.server_load(plan, environment(plan))()
    assert load.memory_max_bytes == 64 * 2**20
    assert 500_000 < load.memory_bytes < load.memory_max_bytes
    assert load.evicted == 0
    registry = CollectorRegistry()
    registry.register(ServerMetrics(lambda: load))
    assert set(families(generate_latest(registry).decode())) == {
        metric_names.BROKER_MEMORY,
        metric_names.BROKER_MEMORY_MAX,
        metric_names.BROKER_EVICTED.removesuffix("_total"),
        metric_names.BROKER_SNAPSHOT,
        metric_names.BROKER_AOF,
    }

    def refuse() -> ServerLoad:
        raise exporter.RedisError("NOPERM")

    registry = CollectorRegistry()
    registry.register(ServerMetrics(refuse))
    assert generate_latest(registry) == b""


def test_a_server_that_cannot_save_says_so_until_it_can(server: Server, plan: Topology) -> None:
    ask = exporter.server_load(plan, environment(plan))
    assert ask().saved == {metric_names.BROKER_SNAPSHOT: True, metric_names.BROKER_AOF: True}
    # A snapshot is written beside its place and then moved there.
    (server.folder / "dump.rdb").mkdir()
    with Redis(port=server.port, username="operator", password="operator-password") as operator:
        operator.bgsave()
        until(lambda: not ask().saved[metric_names.BROKER_SNAPSHOT], "the snapshot fails")
        assert ask().saved[metric_names.BROKER_AOF]
        (server.folder / "dump.rdb").rmdir()
        operator.bgsave()
        until(lambda: ask().saved[metric_names.BROKER_SNAPSHOT], "the snapshot succeeds")


def test_the_broker_is_found_through_sentinel(server: Server, plan: Topology) -> None:
    folder, port = server.folder / "sentinel", free_port()
    folder.mkdir()
    instance = topology("multi-tenant").instance("redis-broker")
    (folder / "sentinel.acl").write_text(redis_acl.sentinel_acl(instance, REDIS_PASSWORDS, "operator-password"))
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\naclfile {folder}/sentinel.acl\n"
        f"sentinel monitor redis-broker 127.0.0.1 {server.port} 1\n"
        f"sentinel auth-user redis-broker operator\nsentinel auth-pass redis-broker operator-password\n"
    )
    with (folder / "log").open("ab") as log:
        command = [str(binaries.valkey_server()), str(folder / "sentinel.conf"), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        send(celery(plan))
        here = redis_config.Database("127.0.0.1", port, 0, "broker", REDIS_PASSWORD, "", None, "redis-broker")

        def finds() -> bool:
            try:
                return Broker(client(here), "", plan.celery.queues).read().waiting["default"] == 13
            except NoBroker:
                return False

        until(finds, "the queue is read through Sentinel")
    finally:
        process.terminate()
        process.wait(20)


class Exporter:
    """The real process, in the environment that a pod gives it: the topology's path and one password."""

    def __init__(self, plan: Topology, folder: Path) -> None:
        (folder / "topology.json").write_text(plan.model_dump_json())
        self.url = f"http://127.0.0.1:{plan.exporter.port}"
        self.log = folder / "exporter.log"
        _, *arguments = commands.exporter()
        password_env = plan.redis_users()["reader"].password_env
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(binaries.superset_python()), *arguments],
                env={
                    "PATH": os.defpath,
                    "PYTHONPATH": str(PROJECT),
                    commands.TOPOLOGY_ENV: str(folder / "topology.json"),
                    password_env: REDIS_PASSWORDS["reader"],
                },
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        until(self.healthy, f"the exporter answers: {self.log.read_text()}")

    def healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/health").text == "ok\n"
        except httpx.ConnectError:
            return False

    def scrape(self) -> dict[str, Metric]:
        answer = httpx.get(f"{self.url}/metrics", timeout=15)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return families(answer.text)

    def says(self, name: str) -> float:
        return self.scrape()[name].samples[0].value


@pytest.mark.superset
def test_what_prometheus_gets(server: Server, plan: Topology, tmp_path: Path) -> None:
    """From a loaded broker to a dead one and back; nothing is said of queues while nothing is known of them."""
    app = celery(plan)
    send(app)
    with held(app):
        process = Exporter(plan, tmp_path)
        try:
            found = process.scrape()
            assert by_queue(found, metric_names.DEPTH) == WAITING
            assert by_queue(found, metric_names.IN_FLIGHT) == IN_FLIGHT
            assert by_queue(found, metric_names.MESSAGES) == {"default": 13, "priority": 3, "tenant-a": 5, "tenant-b": 0}
            assert by_queue(found, metric_names.OLDEST_IN_FLIGHT).keys() == WAITING.keys()
            assert found[metric_names.UP].samples[0].value == 1
            assert found[metric_names.ERRORS].samples[0].value == 0
            assert found["process_resident_memory_bytes"].samples[0].value < 64 * 2**20
            assert httpx.get(f"{process.url}/else").status_code == 404

            server.kill()
            until(lambda: process.says(metric_names.UP) == 0, "the failure is seen")
            found = process.scrape()
            assert QUEUE_METRICS.isdisjoint(found)
            assert found[metric_names.ERRORS].samples[0].name == "celery_exporter_errors_total"
            assert found[metric_names.ERRORS].samples[0].value >= 1
            assert process.healthy()

            server.start()
            until(lambda: process.says(metric_names.UP) == 1, "the broker is read again")
            found = process.scrape()
            assert by_queue(found, metric_names.MESSAGES)["priority"] == 3
            assert found[metric_names.ERRORS].samples[0].value >= 1

            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(5) == 0
        finally:
            process.process.kill()
            process.process.wait(5)
        log = process.log.read_text()
        assert len(re.findall("cannot be read", log)) == 1
        assert len(re.findall("reads the broker: default, priority, tenant-a, tenant-b", log)) == 2
        assert REDIS_PASSWORDS["reader"] not in log


def test_what_processes_count_together_is_served_and_what_is_no_counter_left_out(plan: Topology) -> None:
    database = redis_config.located(plan, "coordination", REDIS_PASSWORD)
    connection = client(database)
    registry = CollectorRegistry()
    now = [plan]
    registry.register(exporter.shared(plan, environment(plan), lambda: now[0]))
    before = families(generate_latest(registry).decode())
    assert metric_names.REAPED_AT not in before
    # Every series is there from the beginning, so that its first event is an increase.
    assert {sample.value for sample in before[metric_names.TASKS_COMPLETED.removesuffix("_total")].samples} == {0}
    counted = {field(metric_names.REFUSED, {"queue": "default", "reason": reason}): 3 for reason in ("queue_full", 'a"b\n')}
    gone = {field(metric_names.REFUSED, {"queue": "former", "reason": "queue_full"}): 5}
    forged = [
        "",
        "[]",
        "7",
        '["x"]',
        '["no_suffix", {}]',
        '["bad name_total", {}]',
        '["x_total", {"bad-label": ""}]',
        '["y_total"]',
        '["y_bucket", {"le": "many"}]',
    ]
    connection.hset(f"{database.prefix}counters", mapping={**counted, **gone, **dict.fromkeys(forged, 1)})
    connection.hset(f"{database.prefix}counters", field("z_total", {}), "no number")
    connection.mset({f"{database.prefix}reaper:last": 1_700_000_000.5, f"{database.prefix}reaper:oldest": 12.5})
    found = families(generate_latest(registry).decode())
    assert by_queue(found, metric_names.BOUND) == dict.fromkeys(WAITING, plan.resilience.max_queued)
    assert found[metric_names.REAPED_AT].samples[0].value == 1_700_000_000.5
    refused = found.pop(metric_names.REFUSED.removesuffix("_total"))
    values = {(sample.labels["queue"], sample.labels["reason"]): sample.value for sample in refused.samples}
    assert {place: value for place, value in values.items() if value} == {
        ("default", "queue_full"): 3,
        ("default", 'a"b\n'): 3,
    }
    assert values.keys() >= {(queue, "queue_full") for queue in WAITING}
    assert found[metric_names.SERIES_OMITTED].samples[0].value == 1
    assert found[metric_names.OLDEST_RUNNING].samples[0].value == 12.5
    assert set(found) - set(before) == {metric_names.REAPED_AT, metric_names.OLDEST_RUNNING}
    # A tenant has come since the exporter's start.
    celery = plan.celery.model_copy(update={"queues": (*plan.celery.queues, "tenant-c")})
    now[0] = plan.model_copy(update={"celery": celery})
    later = families(generate_latest(registry).decode())
    assert by_queue(later, metric_names.BOUND) == dict.fromkeys((*WAITING, "tenant-c"), plan.resilience.max_queued)


def test_a_histogram_that_processes_count_is_one(plan: Topology) -> None:
    database = redis_config.located(plan, "coordination", REDIS_PASSWORD)
    counters = f"{database.prefix}counters"
    connection = client(database)
    connection.delete(counters)
    bounds = task_buckets(plan.longest_time_limit)
    for seconds in (0.05, 0.7, 61.25):
        for name, by, labels in increments(
            "sql_lab.get_sql_results", "tenant-a", "tenant-a", "success", seconds, bounds=bounds
        ):
            connection.hincrbyfloat(counters, field(name, labels), by)
    registry = CollectorRegistry()
    registry.register(exporter.shared(plan, environment(plan)))
    found = families(generate_latest(registry).decode())
    assert found["celery_task_completed"].type == "counter"
    histogram = found[metric_names.TASK_SECONDS]
    assert histogram.type == "histogram"
    here = {"task_name": "sql_lab.get_sql_results", "queue": "tenant-a", "tenant": "tenant-a"}
    samples = [one for one in histogram.samples if here.items() <= one.labels.items()]
    buckets = {one.labels["le"]: one.value for one in samples if one.name.endswith("_bucket")}
    # Up to the first one beyond the hard limit of 600 s.
    beyond = {"120": 3, "300": 3, "600": 3, "1200": 3, "+Inf": 3}
    assert buckets == {"0.1": 1, "0.5": 1, "1": 2, "5": 2, "10": 2, "30": 2, "60": 2, **beyond}
    assert list(buckets) == sorted(buckets, key=float)
    assert [(one.name[-5:], one.value) for one in samples[-2:]] == [("count", 3), ("s_sum", 62.0)]
    connection.delete(counters)


def test_workers_are_counted_by_the_queues_that_they_say_they_listen_to() -> None:
    plan = topology("multi-tenant", platform="local")
    said = [Service(("default", "priority"), 4), Service(("default",), 4), Service(("former",), 9), Service((), 0)]
    registry = CollectorRegistry()
    registry.register(SharedMetrics(lambda: Shared({}, said), lambda: plan))
    found = families(generate_latest(registry).decode())
    assert by_queue(found, metric_names.WORKERS) == {"default": 2, "priority": 1, "tenant-a": 0, "tenant-b": 0}
    assert by_queue(found, metric_names.WORKER_SLOTS) == {"default": 8, "priority": 4, "tenant-a": 0, "tenant-b": 0}
    assert by_queue(found, metric_names.WORKERS_EXPECTED) == dict.fromkeys(WAITING, 1)


@pytest.mark.parametrize("stack", STACKS)
def test_expected_workers_and_limits_are_the_stacks(stack: str) -> None:
    plan = topology(stack)
    registry = CollectorRegistry()
    registry.register(SharedMetrics(lambda: Shared({}), lambda: plan))
    found = families(generate_latest(registry).decode())
    for pool in plan.pools:
        least = 1 if plan.platform == "local" else pool.min_workers
        for queue in pool.queues:
            assert by_queue(found, metric_names.WORKERS_EXPECTED)[queue] >= least
            assert by_queue(found, metric_names.WORKERS_MAX)[queue] >= least
    assert set(by_queue(found, metric_names.TIME_LIMIT)) == set(plan.celery.queues)


def test_what_is_served_is_bounded() -> None:
    plan = topology("multi-tenant")
    many = [({"queue": "default", "reason": str(number)}, 1.0) for number in range(30)]
    zeros = len(list(known_series.at_zero(plan)))
    series, omitted = served(plan, {metric_names.REFUSED: many}, most=zeros + 10)
    assert omitted == 20
    assert sum(map(len, series.values())) == zeros + 10
    # What is known from the start is counted however many others there are.
    series, omitted = served(plan, {"a_total": many, metric_names.RETRIES: [({"kind": "sql"}, 7.0)]}, most=zeros)
    assert omitted == 30
    assert ({"kind": "sql"}, 7.0) in series[metric_names.RETRIES]


def test_scrapes_of_one_moment_share_a_look() -> None:
    looks: list[int] = []

    def look() -> Reading:
        looks.append(1)
        return Reading({"default": len(looks)}, {"default": 0}, {"default": 0.0})

    registry = CollectorRegistry()
    registry.register(QueueMetrics(look, print))
    first = generate_latest(registry)
    assert by_queue(families(generate_latest(registry).decode()), metric_names.DEPTH) == {"default": 1}
    assert by_queue(families(first.decode()), metric_names.DEPTH) == {"default": 1}
    assert len(looks) == 1


@pytest.mark.superset
def test_it_needs_no_superset_and_says_what_it_lacks(plan: Topology, tmp_path: Path) -> None:
    others = ("superset", "flask", "celery", "sqlalchemy")
    script = f"import sys, runtime.observability.exporter; print([m for m in {others} if m in sys.modules])"
    done = subprocess.run(
        [str(binaries.superset_python()), "-c", script], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"
    with pytest.raises(ConfigurationError, match="REDIS_READER_PASSWORD is not set"):
        exporter.broker(plan, {"REDIS_CACHE_PASSWORD": "x"})
    with pytest.raises(ConfigurationError, match="SUPERSET_ASYNC_TOPOLOGY"):
        exporter.main({}, print)


def test_every_metric_is_documented() -> None:
    document = (PROJECT / "docs/metrics.md").read_text()
    names = [
        value for key, value in vars(metric_names).items() if key.isupper() and key not in ("QUEUE_LABEL", "SENT_HEADER")
    ]
    assert len(names) > 10
    for name in names:
        assert f"`{name}{'_total' if name == metric_names.ERRORS else ''}`" in document
