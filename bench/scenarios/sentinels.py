"""The primary of a broker is killed under Sentinel while messages are sent to it. Run by `bench.scenarios.broker`, in a network
and mounts of its own; prints a line of JSON for each fault.

The servers and Sentinels are started by the pods' own scripts (tests/components/sentinel_world.py); messages go into a queue as
kombu puts them, through the same client as Superset's.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import redis

from tests.components.sentinel_world import INSTANCE, World

SENDERS = 10
QUEUE = "default"


class Senders:
    """Threads that send messages one after the other; what was accepted is remembered."""

    def __init__(self, world: World, prefix: str) -> None:
        self._world, self._prefix = world, prefix
        self.accepted: list[tuple[str, float]] = []
        self.refused = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(SENDERS)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _send(self, sender: int) -> None:
        primary = cast(Any, self._world.sentinel_client()).master_for(INSTANCE.name)
        number = 0
        while not self._stop.is_set():
            number += 1
            message = f"{self._prefix}-{sender}-{number}"
            try:
                primary.lpush(QUEUE, message)
            except redis.RedisError:
                self.refused += 1
                time.sleep(0.1)
            else:
                self.accepted.append((message, time.monotonic()))
                time.sleep(0.01)


def kill_primary(world: World, fault: str, *, in_first_sync: bool) -> None:
    """Kill the primary in the middle of sending, and say what of the accepted the new one has."""
    old = world.primary()
    with Senders(world, fault.replace(" ", "-")) as senders:
        time.sleep(2)
        if in_first_sync:
            # It begins from nothing, and copies everything before it has any of it.
            replica = next(pod for pod in world.servers if pod is not old)
            replica.stop(signal.SIGKILL)
            replica.empty()
            replica.start()
        before = time.monotonic()
        old.stop(signal.SIGKILL)
        deadline = before + 120
        while not any(at > before + 0.5 for _, at in senders.accepted) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
    again = min((at for _, at in senders.accepted if at > before + 0.5), default=float("nan"))
    connection = cast(Any, world.sentinel_client()).master_for(INSTANCE.name)
    there = {message.decode() for message in connection.lrange(QUEUE, 0, -1)}
    lost = [message for message, _ in senders.accepted if message not in there]
    said = {"accepted": len(senders.accepted), "lost": len(lost), "refused": senders.refused, "seconds": again - before}
    print(json.dumps({"fault": fault, **said}), flush=True)
    old.start()
    world.until("all are well", world.healthy, 120)


def main() -> None:
    """Both faults, on one set of servers."""
    world = World(Path(sys.argv[1]))
    try:
        for pod in world.pods.values():
            pod.start()
        world.until("all are well", world.healthy, 120)
        kill_primary(world, "primary killed under Sentinel, 10 senders", in_first_sync=False)
        kill_primary(world, "the same while a replica is in its first sync", in_first_sync=True)
    finally:
        world.stop()


if __name__ == "__main__":
    main()
