"""Queues that are gone: what waits in them is executed all the same. Real Celery's messages on a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from runtime.broker.queues import Queues, readdressed
from tests.runtime.conftest import OPERATOR_PASSWORD, Services, run_script

PREFIX = "coordination:"
#: Names that the test server's users may use.
GONE, DEFAULT = "tenant-a", "default"


@pytest.fixture
def redis(services: Services) -> Iterator[Any]:
    connection: Any = Redis(port=services.redis_port, db=9, username="operator", password=OPERATOR_PASSWORD)
    connection.flushdb()
    yield connection
    connection.flushdb()


@pytest.fixture
def queues(redis: Any) -> Queues:
    return Queues(redis, PREFIX, redis, "")


def test_queues_retire_and_come_back(queues: Queues) -> None:
    assert queues.declare([DEFAULT, GONE]) == set()
    assert queues.declare([DEFAULT, GONE]) == set()
    assert queues.declare([DEFAULT, "b"]) == {GONE}
    assert queues.declare([DEFAULT]) == {GONE, "b"}
    assert queues.declare([DEFAULT, GONE]) == {"b"}
    assert queues.retired() == {"b"}


def test_every_message_moves_once_in_its_order_whoever_sends_and_moves_meanwhile(queues: Queues, redis: Any) -> None:
    queues.declare([DEFAULT, GONE])
    queues.declare([DEFAULT])

    def message(number: int) -> str:
        address = {"exchange": GONE, "routing_key": GONE}
        return json.dumps({"body": "e30=", "headers": {"id": number}, "properties": {"delivery_info": address}})

    redis.lpush(GONE, *[message(number) for number in range(150)])
    redis.lpush(f"{GONE}\x06\x163", message(1000))

    def send(first: int) -> None:
        for number in range(first, first + 50):
            redis.lpush(GONE, message(number))

    with ThreadPoolExecutor() as threads:
        sending = threads.submit(send, 150)
        moving = [threads.submit(queues.empty_retired, DEFAULT) for _ in range(3)]
        sending.result()
        moved = sum(sum(each.result().values()) for each in moving)
    moved += sum(queues.empty_retired(DEFAULT).values())
    assert moved == 201
    assert queues.empty_retired(DEFAULT) == {}
    arrived = [json.loads(each) for each in reversed(redis.lrange(DEFAULT, 0, -1))]
    assert sorted(each["headers"]["id"] for each in arrived) == list(range(200))
    first = [each["headers"]["id"] for each in arrived if each["headers"]["id"] < 150]
    assert len(first) == 150
    assert {each["properties"]["delivery_info"]["routing_key"] for each in arrived} == {DEFAULT}
    assert redis.llen(f"{DEFAULT}\x06\x163") == 1
    assert redis.llen(GONE) == 0


@pytest.mark.parametrize("message", [b"no JSON", b"[]", b"{}", b'{"properties": {"delivery_info": 3}}'])
def test_what_is_no_message_moves_as_it_is(message: bytes) -> None:
    assert readdressed(message, DEFAULT) == message


@pytest.mark.superset
def test_celery_executes_what_was_moved_and_gives_it_back_to_the_default_queue(services: Services) -> None:
    said = run_script("broker.moved_messages_process", {"PATH": "/usr/bin:/bin"}, str(services.redis_port))
    assert said == {"moved": {GONE: 20}, "given_back_to": DEFAULT, "executed": list(range(20))}
