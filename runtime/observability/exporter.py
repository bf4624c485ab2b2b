"""`python -m runtime.observability.exporter`: a small process that tells Prometheus how many messages each queue holds.

It reads the broker as Celery's Redis transport keeps it: a list for each priority of a queue with what waits, and for all
queues together a hash and a sorted set with what was delivered and is not acknowledged. When the broker cannot be read the
metrics of queues are absent: no scaler and no alert can take a broken broker for an idle one. What each metric means is in
docs/metrics.md.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import FrameType

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from redis import Redis, RedisError

from runtime.broker.messages import DELIVERED_AT, PRIORITY_SUFFIXES, UNACKNOWLEDGED
from runtime.environment import listening, process_topology
from runtime.environment import redis_databases as redis_config
from runtime.environment.process_topology import load_topology
from runtime.environment.redis_clients import client
from runtime.environment.secrets import ConfigurationError
from runtime.observability.shared_metrics import SharedMetrics, by_queue, read_shared
from topology import metric_names
from topology.model import Topology

#: Scrapes within so many seconds of each other share one reading of the broker.
FRESH_SECONDS = 5.0
#: Prometheus gives a scrape ten seconds. A reading that needs longer for the messages in flight goes on at the next one.
MOST_SECONDS = 4.0
#: Beyond so many messages in flight they are not told apart: the memory of this process is bounded.
MOST_IN_FLIGHT = 50_000
#: Tags of one reply, and whole messages of one reply: their bodies hold SQL.
TAGS, MESSAGES = 1000, 100
#: What a server says of how it could save (`INFO persistence`), by metric.
SAVED = {metric_names.BROKER_SNAPSHOT: "rdb_last_bgsave_status", metric_names.BROKER_AOF: "aof_last_write_status"}


@dataclass(frozen=True)
class Reading:
    """What the broker held: messages by queue, and seconds since the delivery of the oldest one in flight (0 for none).

    These two are None where there were too many to tell them apart in time. `oldest_waiting`: seconds since the one that waits
    for longest was sent; 0 where none does, or where its sender is not this project's and does not say.
    """

    waiting: Mapping[str, int]
    in_flight: Mapping[str, int] | None
    oldest_seconds: Mapping[str, float] | None
    oldest_waiting: Mapping[str, float] = field(default_factory=dict[str, float])


class Broker:
    """Reads the queues in a Redis database; remembers of each message in flight its queue, so that it reads it once."""

    def __init__(self, connection: Redis[bytes], prefix: str, queues: Sequence[str] | Callable[[], Sequence[str]]) -> None:
        self._connection = connection
        self._prefix = prefix
        self._queues_now = queues if callable(queues) else lambda: queues
        self._queues = self._queues_now()
        self._queue_of: dict[bytes, str] = {}

    def read_waiting(self) -> Reading:
        """What waits in the queues now, and nothing of what is in flight; RedisError where the broker cannot be read."""
        self._queues = self._queues_now()
        waiting, oldest_waiting = self._waiting()
        return Reading(waiting, None, None, oldest_waiting)

    def read(self) -> Reading:
        """What is in the queues and in flight now; RedisError where the broker cannot be read."""
        found = self.read_waiting()
        delivered = self._delivered(time.monotonic() + MOST_SECONDS)
        if delivered is None:
            return found
        now = time.time()
        counts = dict.fromkeys(self._queues, 0)
        oldest = dict.fromkeys(self._queues, 0.0)
        for tag, at in delivered.items():
            queue = self._queue_of.get(tag)
            if queue in counts:
                counts[queue] += 1
                # The clock is a worker's, and may be ahead of this one.
                oldest[queue] = max(oldest[queue], now - at)
        return replace(found, in_flight=counts, oldest_seconds=oldest)

    def _waiting(self) -> tuple[dict[str, int], dict[str, float]]:
        lists = [(queue, f"{self._prefix}{queue}{suffix}") for queue in self._queues for suffix in PRIORITY_SUFFIXES]
        pipeline = self._connection.pipeline(transaction=False)
        for _, key in lists:
            pipeline.llen(key)
            # Messages come in on the left and go on the right.
            pipeline.lindex(key, -1)
        replies = pipeline.execute()
        now = time.time()
        waiting, oldest = dict.fromkeys(self._queues, 0), dict.fromkeys(self._queues, 0.0)
        for (queue, _), length, message in zip(lists, replies[::2], replies[1::2], strict=True):
            waiting[queue] += length
            # The clock is the sender's, and may be ahead of this one.
            oldest[queue] = max(oldest[queue], now - (sent_at(message) or now))
        return waiting, oldest

    def _delivered(self, deadline: float) -> dict[bytes, float] | None:
        """Time of delivery of every tag in flight, with `_queue_of` filled for each that is still there; None: too many."""
        delivered: dict[bytes, float] = {}
        if self._connection.zcard(f"{self._prefix}{DELIVERED_AT}") > MOST_IN_FLIGHT:
            return None
        for tag, at in self._connection.zscan_iter(f"{self._prefix}{DELIVERED_AT}", count=TAGS):
            delivered[tag] = at
        self._queue_of = {tag: queue for tag, queue in self._queue_of.items() if tag in delivered}
        unknown = [tag for tag in delivered if tag not in self._queue_of]
        for first in range(0, len(unknown), MESSAGES):
            tags = unknown[first : first + MESSAGES]
            for tag, message in zip(tags, self._connection.hmget(f"{self._prefix}{UNACKNOWLEDGED}", tags), strict=True):
                # None: acknowledged in the meantime.
                if message is not None:
                    self._queue_of[tag] = queue_of(message)
            if time.monotonic() > deadline and first + MESSAGES < len(unknown):
                return None
        return delivered


def sent_at(message: bytes | None) -> float | None:
    """When a message that waits was sent, in seconds since the epoch; None for one that does not say, and for none."""
    try:
        return float(json.loads(message or "")["headers"][metric_names.SENT_HEADER])
    except (ValueError, TypeError, LookupError):
        return None


def queue_of(message: bytes) -> str:
    """The queue of a message in flight: its routing key, since each queue is bound by its own name. Empty for no message."""
    try:
        _, _, routing_key = json.loads(message)
    except (ValueError, TypeError):
        return ""
    return str(routing_key)


@dataclass(frozen=True)
class ServerLoad:
    """What the broker's server says of itself: bytes that it uses and may use (0: no bound), keys that it has evicted, and
    whether it could save when it last tried, by metric (without those that it does not say).
    """

    memory_bytes: int
    memory_max_bytes: int
    evicted: int
    saved: Mapping[str, bool] = field(default_factory=dict[str, bool])


class ServerMetrics(Collector):
    """The memory of the broker's server, and whether it can save. On someone else's that does not say it, there are none."""

    def __init__(self, read: Callable[[], ServerLoad]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """All of it, or nothing where the server does not answer."""
        try:
            load = self._read()
        except (RedisError, OSError, KeyError, ValueError):
            return
        yield GaugeMetricFamily(metric_names.BROKER_MEMORY, "Bytes that the broker's server uses", load.memory_bytes)
        yield GaugeMetricFamily(
            metric_names.BROKER_MEMORY_MAX, "Bytes that it may use, 0 without a bound", load.memory_max_bytes
        )
        yield CounterMetricFamily(
            metric_names.BROKER_EVICTED.removesuffix("_total"), "Keys that it has evicted", load.evicted
        )
        for name, succeeded in load.saved.items():
            yield GaugeMetricFamily(name, "1 if the broker's server could save when it last tried, else 0", float(succeeded))


def read_server(connection: Redis[bytes]) -> ServerLoad:
    """What the server of `connection` says; RedisError where it does not answer."""
    memory, stats, disk = (connection.info(section) for section in ("memory", "stats", "persistence"))
    saved = {name: disk[said] == "ok" for name, said in SAVED.items() if said in disk}
    return ServerLoad(int(memory["used_memory"]), int(memory["maxmemory"]), int(stats["evicted_keys"]), saved)


class QueueMetrics(Collector):
    """The metrics, made when they are asked for, from a reading of the broker that is at most `FRESH_SECONDS` old."""

    def __init__(self, read: Callable[[], Reading], say: Callable[[str], None]) -> None:
        self._read = read
        self._say = say
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._last: Reading | None = None
        self._seconds = 0.0
        self._errors = 0

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every metric; those of queues only where the broker was read."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._refresh()
            last, seconds, errors = self._last, self._seconds, self._errors
        yield GaugeMetricFamily(
            metric_names.UP, "1 if the last reading of the broker succeeded, else 0", float(last is not None)
        )
        yield CounterMetricFamily(metric_names.ERRORS, "Looks at the broker that failed", errors)
        yield GaugeMetricFamily(metric_names.LOOK_SECONDS, "Seconds that the last reading of the broker took", seconds)
        if last is None:
            return
        yield by_queue(metric_names.DEPTH, "Messages waiting in the queue, of all priorities", last.waiting)
        yield by_queue(
            metric_names.OLDEST_WAITING,
            "Seconds since the message that waits for longest was sent; 0 where none waits",
            last.oldest_waiting,
        )
        if last.in_flight is None or last.oldest_seconds is None:
            return
        yield by_queue(metric_names.IN_FLIGHT, "Messages delivered to a worker and not acknowledged", last.in_flight)
        both = {queue: count + last.in_flight[queue] for queue, count in last.waiting.items()}
        yield by_queue(metric_names.MESSAGES, "Messages waiting or in flight", both)
        yield by_queue(
            metric_names.OLDEST_IN_FLIGHT,
            "Seconds since the message in flight for longest was delivered; 0 where none is",
            last.oldest_seconds,
        )

    def _refresh(self) -> None:
        begun = time.monotonic()
        before = self._last
        try:
            self._last = self._read()
        except (RedisError, OSError) as error:
            self._last = None
            self._errors += 1
            if before is not None or self._errors == 1:
                self._say(f"the broker cannot be read: {error}")
        else:
            if before is None:
                self._say(f"reads the broker: {', '.join(self._last.waiting)}")
        self._seconds = time.monotonic() - begun
        self._until = time.monotonic() + FRESH_SECONDS


class _Server(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = listening.family(address[0])
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Listen to both families where the address is every one."""
        listening.both_families(self.socket)
        super().server_bind()


def server(topology: Topology, registry: CollectorRegistry) -> ThreadingTCPServer:
    """A server of `/metrics`, and of `/health`, which says only that this process answers; OSError for a taken port."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answer a scrape or a probe."""
            match self.path.partition("?")[0]:
                case "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, content_type, encode(registry))
                case "/health":
                    self._answer(200, "text/plain", b"ok\n")
                case _:
                    self._answer(404, "text/plain", b"there are /metrics and /health\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a scrape every few seconds is no news."""

    return _Server((listening.address(topology.exporter.bind), topology.exporter.port), Handler)


def _password(topology: Topology, env: Mapping[str, str]) -> str:
    user = topology.redis_users()["reader"]
    password = env.get(user.password_env)
    if not password:
        raise ConfigurationError(
            f"stack {topology.stack!r}: {user.password_env} is not set. Give the exporter the password of the broker's user "
            f"{user.username!r} as an environment variable"
        )
    return password


def broker(topology: Topology, env: Mapping[str, str], queues: Callable[[], Sequence[str]] | None = None) -> Broker:
    """The broker of `topology`, reached with the password in `env`; ConfigurationError where it is not there.

    `queues` says which there are when they are read; None: those of `topology`.
    """
    database = redis_config.located(topology, "broker", _password(topology, env), "reader")
    return Broker(client(database), database.prefix, queues or topology.celery.queues)


def shared(topology: Topology, env: Mapping[str, str], now: Callable[[], Topology] | None = None) -> SharedMetrics:
    """The counters of `topology`'s processes; ConfigurationError where the broker's password is not there.

    `now` says what the topology is when they are read; None: as it is here.
    """
    database = redis_config.located(topology, "coordination", _password(topology, env), "reader")
    connection = client(database)
    return SharedMetrics(lambda: read_shared(connection, database.prefix), now or (lambda: topology))


def server_load(topology: Topology, env: Mapping[str, str]) -> Callable[[], ServerLoad]:
    """How to ask the broker's server of `topology`; ConfigurationError where its password is not there."""
    connection = client(redis_config.located(topology, "broker", _password(topology, env), "reader"))
    return lambda: read_server(connection)


def main(env: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Serve until SIGTERM; ConfigurationError for a topology or environment that does not do, OSError for a taken port."""
    topology = load_topology(env)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    # Queues of new tenants are told of without a restart.
    registry.register(QueueMetrics(broker(topology, env, lambda: process_topology.current().celery.queues).read, say))
    registry.register(shared(topology, env, process_topology.current))
    registry.register(ServerMetrics(server_load(topology, env)))
    # The first process of a container gets only the signals that it handles.
    signal.signal(signal.SIGTERM, _stop)
    with server(topology, registry) as serving:
        say(f"serves /metrics on port {topology.exporter.port}")
        serving.serve_forever()


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _say(line: str) -> None:
    logging.getLogger("exporter").info(line)


if __name__ == "__main__":
    from runtime.environment import json_logs

    try:
        json_logs.install()
        main(os.environ, _say)
    except (ConfigurationError, OSError) as problem:
        sys.exit(f"exporter: {problem}")
