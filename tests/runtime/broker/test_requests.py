"""What a worker's parent does with the message of a child that is gone."""

from __future__ import annotations

import logging

import pytest
from kombu import Connection, Queue

from runtime.broker import requests
from tests.runtime.conftest import OPERATOR_PASSWORD, Services

QUEUE = Queue("comes-next", routing_key="comes-next")


@pytest.mark.parametrize(("ours", "order"), [(True, ["lost", "second", "third"]), (False, ["second", "third", "lost"])])
def test_a_lost_query_is_the_next_and_no_message_is_doubled(services: Services, ours: bool, order: list[str]) -> None:
    """Beside what Redis's transport does by itself."""
    url = f"redis://operator:{OPERATOR_PASSWORD}@127.0.0.1:{services.redis_port}/11"
    with Connection(url) as connection, connection.SimpleQueue(QUEUE) as queue:
        for name in ("lost", "second", "third"):
            queue.put(name)
        lost = queue.get(timeout=5)
        assert lost.payload == "lost"
        if ours:
            requests._comes_next(lost)
        lost.reject_log_error(logging.getLogger(), connection.connection_errors, requeue=True)
        assert lost.acknowledged
        seen: list[str] = []
        for _ in order:
            message = queue.get(timeout=5)
            seen.append(message.payload)
            message.ack()
        assert seen == order
        with pytest.raises(queue.Empty):
            queue.get(block=False)
