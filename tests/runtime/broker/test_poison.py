"""A worker goes on whatever is in its queue: each kind of malformed message is dropped and counted, and what follows it runs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis import Redis

from runtime.broker import channels
from runtime.environment.redis_databases import located
from tests.runtime.conftest import PROJECT
from tests.runtime.observability.test_exporter import Server, free_port, until
from tests.runtime.stacks import REDIS_PASSWORDS, environment, topology
from topology import commands, metric_names

Message = dict[str, Any]


def encoded(value: object) -> str:
    """A message's body."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def with_header(**headers: object) -> Callable[[Message], Message]:
    """A good message with other headers."""
    return lambda message: {**message, "headers": {**message["headers"], **headers}}


def pickled(message: Message) -> Message:
    """A message whose content is a program."""
    body = base64.b64encode(b"cos\nsystem\n(S'false'\ntR.").decode()
    return {**message, "content-type": "application/x-python-serialize", "content-encoding": "binary", "body": body}


#: What is put into the queue, made of a good message, and whether Celery itself tells it apart (and drops it).
KINDS: dict[str, Callable[[Message], object]] = {
    "no JSON": lambda message: b"no json \xff",
    "an empty object": lambda message: {},
    "a number": lambda message: 12,
    "a list": lambda message: [],
    "null": lambda message: None,
    "no properties": lambda message: {**message, "properties": None},
    "no delivery information": lambda message: {**message, "properties": {**message["properties"], "delivery_info": {}}},
    "a body that is no base64": lambda message: {**message, "body": "!!!"},
    "a body that is no call": lambda message: {**message, "body": encoded(7)},
    "a call of too few parts": lambda message: {**message, "body": encoded([[]])},
    "headers that are none": lambda message: {**message, "headers": None},
    "no headers": lambda message: {**message, "headers": {}},
    "limits that are text": with_header(timelimit="forged"),
    "limits of text": with_header(timelimit=["1", "2"]),
    "a time that is none": with_header(eta="forged"),
    "an end that is none": with_header(expires="forged"),
    "a program": pickled,
    "an unknown task": with_header(task="unknown.task"),
}


@pytest.mark.services
def test_whatever_is_in_its_queue_a_worker_goes_on(tmp_path: Path) -> None:
    server = Server(tmp_path, free_port())
    server.start()
    plan = topology("multi-tenant", platform="local", local={"redis_port": server.port})
    (tmp_path / "topology.json").write_text(plan.model_dump_json())
    operator = cast(Any, Redis(port=server.port, username="operator", password="operator-password"))
    env = {
        **os.environ,
        **environment(plan, "worker"),
        commands.TOPOLOGY_ENV: str(tmp_path / "topology.json"),
        "BROKER_URL": f"redis://operator:operator-password@127.0.0.1:{server.port}/0",
        "PYTHONPATH": str(PROJECT),
    }
    arguments = ["--app=tests.runtime.broker.poison_process", "worker", "--concurrency=1", "--without-gossip", "-Ofair"]
    log = tmp_path / "worker.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "celery", *arguments, "--without-mingle", "--loglevel=INFO"]
        worker = subprocess.Popen(command, env=env, cwd=PROJECT, stdout=output, stderr=output)
    try:
        until(lambda: " ready." in log.read_text(), "the worker is ready", 60)
        good = _send(env, operator)
        for number, (kind, make) in enumerate(KINDS.items()):
            forged = make(json.loads(json.dumps(good)))
            operator.lpush("celery", forged if isinstance(forged, bytes) else json.dumps(forged))
            after = {**good, "body": encoded([[number], {}, {}])}
            after["headers"] = {**good["headers"], "id": f"after-{number}"}
            after["properties"] = {
                **good["properties"],
                "delivery_tag": f"after-{number}",
                "correlation_id": f"after-{number}",
            }
            operator.lpush("celery", json.dumps(after))
            until(
                lambda expected=number + 1: operator.llen("ran") == expected, f"the worker goes on after {kind}: {log}", 30
            )
            assert worker.poll() is None, kind
        assert [int(number) for number in operator.lrange("ran", 0, -1)] == list(range(len(KINDS)))
        until(lambda: operator.hlen("unacked") == operator.llen("celery") == 0, "nothing is left", 20)
    finally:
        worker.terminate()
        worker.wait(30)
        database = located(plan, "coordination", REDIS_PASSWORDS["broker"])
        counters = cast(Any, Redis(port=server.port, db=database.number, username="operator", password="operator-password"))
        counted = counters.hgetall(f"{database.prefix}counters")
        server.kill()
    found = {
        json.loads(field)[1]["where"]: int(value) for field, value in counted.items() if metric_names.POISON in str(field)
    }
    assert found.keys() == {"queue", "message", "unknown_task"}
    assert sum(found.values()) == len(KINDS)


@dataclass
class Received:
    """As much of a message as a worker's channel looks at."""

    headers: object = field(default_factory=lambda: {"task": "good", "id": "1"})
    body: object = "[[], {}, {}]"
    payload: object = field(default_factory=lambda: [[], {}, {}])
    delivery_info: object = field(default_factory=lambda: {"routing_key": "celery"})
    acknowledged: bool = False
    rejected: bool = False

    def reject(self) -> None:
        """Done with, and not to come again."""
        self.rejected = True


class Channel:
    """As much of kombu's channel as the strict one changes: it hands over the message that it was given."""

    message: Any = None
    _fanout_queues: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.connection = SimpleNamespace(_callbacks={})

    def basic_consume(self, queue: str, callback: Callable[[Any], Any]) -> None:
        """Have messages given to `callback`."""
        self.connection._callbacks[queue] = callback

    def _brpop_read(self) -> Any:
        return self.connection._callbacks["celery"](self.message)


class BrokenDeploymentError(TypeError):
    """What a task's module of a broken release raises when a message comes for it: of a kind as reading junk raises."""


@pytest.mark.parametrize("error", [BrokenDeploymentError("bad release"), KeyError("task"), ValueError(), AttributeError()])
def test_an_error_of_the_worker_is_raised_and_drops_no_message(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels.counters, "count", lambda *_, **__: pytest.fail("a message was counted as dropped"))
    channel = channels.worker_channel(Channel, None, lambda _: None)()

    def broken(message: Any) -> None:
        raise error

    channel.basic_consume("celery", callback=broken)
    channel.message = Received()
    with pytest.raises(type(error)) as raised:
        channel._brpop_read()
    assert raised.value is error
    assert not channel.message.rejected


@pytest.mark.parametrize(
    "message",
    [
        Received(headers=None),
        Received(headers={"task": 7}),
        Received(headers={"task": "good", "id": "1", "timelimit": ["1", "2"]}),
        Received(payload=[[]]),
        Received(payload=None),
        Received(body=7),
        Received(delivery_info={}),
    ],
)
def test_a_malformed_message_is_dropped_before_the_worker_sees_it(
    message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(channels.counters, "count", lambda name, **labels: counted.append(labels["where"]))
    channel = channels.worker_channel(Channel, None, lambda _: None)()
    channel.basic_consume("celery", callback=lambda _: pytest.fail("the worker has it"))
    channel.message = message
    assert channel._brpop_read() is True
    assert (message.rejected, counted) == (True, ["queue"])


def _send(env: dict[str, str], operator: Any) -> Message:
    """A good message, as Celery writes it, from a queue that nobody listens to."""
    program = (
        "from tests.runtime.broker.poison_process import app; "
        "app.send_task('good', args=[0], queue='other', ignore_result=True)"
    )
    subprocess.run([sys.executable, "-c", program], env=env, cwd=PROJECT, check=True)
    message: Message = json.loads(operator.rpop("other"))
    message["properties"]["delivery_info"] = {"exchange": "", "routing_key": "celery"}
    return message
