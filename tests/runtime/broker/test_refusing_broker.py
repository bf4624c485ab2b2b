"""A broker that answers, and refuses: a worker waits, and goes on when its broker takes commands again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from local import binaries
from tests.runtime.conftest import PROJECT, free_ports
from tests.waiting import until

pytestmark = pytest.mark.services


@dataclass
class Broker:
    """A Valkey with data in a folder of its own, and one Celery worker."""

    server: Any
    data: Path
    log: Path
    worker: subprocess.Popen[bytes]
    message: dict[str, Any]

    def send(self, number: int) -> None:
        """Put one message into the worker's queue, also where the server has no memory for others."""
        body = {**self.message, "properties": {**self.message["properties"], "delivery_tag": f"number-{number}"}}
        body["headers"] = {**self.message["headers"], "id": f"number-{number}"}
        script = "#!lua flags=allow-oom\nreturn redis.call('LPUSH', KEYS[1], ARGV[1])"
        self.server.eval(script, 1, "celery", json.dumps(body))

    def ran(self) -> int:
        return int(self.server.llen("ran"))

    def reconnects(self) -> int:
        return self.log.read_text().count("Connection to broker lost")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("refusing")
    data, port = folder / "data", free_ports(1)
    data.mkdir()
    url = f"redis://127.0.0.1:{port}/0"
    env = {**os.environ, "BROKER_URL": url, "PYTHONPATH": str(PROJECT)}
    options = [f"--port {port}", "--bind 127.0.0.1", f"--dir {data}", "--maxmemory-policy noeviction", "--save 3600 1000000"]
    with (folder / "server.log").open("w") as output:
        command = [str(binaries.valkey_server()), *(part for option in options for part in option.split(" ", 1))]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    server = cast(Any, Redis.from_url(url))
    worker: subprocess.Popen[bytes] | None = None
    try:
        until(lambda: _answers(server), 20, "Valkey answers")
        command = [
            sys.executable,
            "-c",
            "from tests.runtime.broker import poison_process as it; it.app.send_task('good', (0,))",
        ]
        subprocess.run(command, env=env, cwd=PROJECT, check=True, capture_output=True)
        message = json.loads(server.rpop("celery"))
        log = folder / "worker.log"
        with log.open("w") as output:
            arguments = ["--app=tests.runtime.broker.poison_process", "worker", "--concurrency=1", "--without-gossip"]
            command = [sys.executable, "-m", "celery", *arguments, "--without-mingle", "--loglevel=INFO"]
            worker = subprocess.Popen(command, env=env, cwd=PROJECT, stdout=output, stderr=output)
        until(lambda: " ready." in log.read_text(), 60, "the worker is ready")
        yield Broker(server, data, log, worker, message)
    finally:
        if worker is not None:
            worker.terminate()
            worker.wait(30)
        process.kill()
        process.wait(20)


def _answers(server: Any) -> bool:
    try:
        return bool(server.ping())
    except RedisError:
        return False


def unsaved(broker: Broker) -> Callable[[], None]:
    """MISCONF: the last snapshot failed, here since its folder is gone."""
    shutil.rmtree(broker.data)
    broker.server.bgsave()
    until(lambda: broker.server.info("persistence")["rdb_last_bgsave_status"] == "err", 20, "the snapshot has failed")
    with pytest.raises(ResponseError, match="MISCONF"):
        broker.server.set("key", "value")
    return lambda: broker.server.config_set("stop-writes-on-bgsave-error", "no")


def full(broker: Broker) -> Callable[[], None]:
    """OOM: at maxmemory."""
    broker.server.config_set("maxmemory", 1)
    with pytest.raises(ResponseError, match="maxmemory"):
        broker.server.set("key", "value")
    # It takes the message from its list, which needs no memory, and cannot note that it has it.
    broker.send(-1)
    return lambda: broker.server.config_set("maxmemory", 0)


def replica(broker: Broker) -> Callable[[], None]:
    """READONLY: it was made another's replica, as an old primary after a failover."""
    broker.server.replicaof("127.0.0.1", free_ports(1))
    with pytest.raises(ReadOnlyError):
        broker.server.set("key", "value")
    return lambda: broker.server.replicaof("NO", "ONE")


@pytest.mark.parametrize("refuse", [unsaved, full, replica])
def test_an_answer_that_refuses_ends_no_worker(broker: Broker, refuse: Callable[[Broker], Callable[[], None]]) -> None:
    before, ran = broker.reconnects(), broker.ran()
    allow = refuse(broker)
    try:
        until(lambda: broker.reconnects() > before or broker.worker.poll() is not None, 30, "the worker meets the answer")
        assert broker.worker.poll() is None, broker.log.read_text()[-3000:]
    finally:
        allow()
    broker.send(ran)
    until(lambda: broker.ran() > ran, 60, "the worker goes on")
    assert broker.worker.poll() is None
