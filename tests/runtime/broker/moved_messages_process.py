"""Run in Superset's environment, with real Celery: what is sent to a queue that is then gone is executed from the default one.

Usage: python -m tests.runtime.broker.moved_messages_process PORT
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from celery import Celery
from celery.contrib.testing.worker import start_worker
from redis import Redis

from runtime.broker.queues import Queues

GONE, DEFAULT, DATABASE, PASSWORD = "tenant-a", "default", 10, "operator"


def main(port: int) -> None:
    """Print, as JSON, what was moved, where a message that is not acknowledged goes back to, and what was executed."""
    executed: list[int] = []
    app: Any = Celery(broker=f"redis://operator:{PASSWORD}@127.0.0.1:{port}/{DATABASE}")
    app.conf.update(
        task_default_queue=DEFAULT, worker_prefetch_multiplier=1, task_acks_late=True, worker_hijack_root_logger=False
    )

    def execute(number: int) -> None:
        executed.append(number)

    work = app.task(name="work")(execute)
    for number in range(20):
        work.apply_async((number,), queue=GONE)
    redis: Any = Redis(port=port, db=DATABASE, username="operator", password=PASSWORD)
    queues = Queues(redis, "coordination:", redis, "")
    queues.declare([DEFAULT, GONE])
    queues.declare([DEFAULT])
    moved = dict(queues.empty_retired(DEFAULT))
    with app.connection_for_read() as connection:
        consumer = connection.SimpleQueue(DEFAULT, no_ack=False)
        message = consumer.get(timeout=5)
        given_back_to = json.loads(redis.hget("unacked", message.delivery_tag))[2]
        message.requeue()
        consumer.close()
    with start_worker(app, perform_ping_check=False, pool="solo", queues=[DEFAULT]):
        for _ in range(200):
            if len(executed) == 20:
                break
            time.sleep(0.1)
    redis.flushdb()
    print(json.dumps({"moved": moved, "given_back_to": given_back_to, "executed": sorted(executed)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
