"""Whether each part of the local platform does its work, asked of the part itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

import httpx
from celery import Celery
from celery.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from local import postgres
from local.state import StateFolder, web_url
from runtime.environment.coordination import REAPED_AT
from runtime.environment.redis_clients import client
from runtime.environment.redis_databases import located
from topology.model import Pool, RedisInstance, Topology

#: With less on its disk a platform at work cannot write much longer.
FREE_BYTES_AT_WORK = 256 * 2**20
#: What is written to see that the broker takes it is gone after so many seconds.
WRITTEN_SECONDS = 10
#: Beat's reaper sweeps every ten seconds at most.
BEAT_SECONDS = 120
#: How long workers have to answer: one whose children are all busy answers too.
ASK_SECONDS = 3.0
#: What a broker that is away is to a client of Celery: kombu words some of it anew.
_AWAY = (OSError, RedisError, OperationalError)


def redis_ready(instance: RedisInstance, secrets: Mapping[str, str]) -> bool:
    """Whether the server answers each of its users and has loaded its data."""
    return all(_answers(instance, user.username, secrets[user.password_env]) for user in instance.users)


def _answers(instance: RedisInstance, username: str, password: str) -> bool:
    with Redis(host=instance.host, port=instance.port, username=username, password=password, socket_timeout=2) as client:
        try:
            return bool(cast(Any, client).ping())
        except RedisError:
            return False


def web_ready(topology: Topology) -> bool:
    """Whether the web tier answers; it says nothing of its databases."""
    try:
        return httpx.get(f"{web_url(topology)}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def exporter_ready(topology: Topology) -> bool:
    """Whether the exporter answers and sees the broker."""
    try:
        answer = httpx.get(f"http://{topology.exporter.host}:{topology.exporter.port}/metrics", timeout=5)
    except httpx.HTTPError:
        return False
    return "celery_exporter_up 1" in answer.text


def problems(topology: Topology, secrets: Mapping[str, str], folder: StateFolder) -> Iterator[str]:
    """What does not do its work, each in a sentence for who runs the platform: every part is asked."""
    free = shutil.disk_usage(folder.root).free
    if free < FREE_BYTES_AT_WORK:
        yield f"the disk of {folder.root} is full ({free / 2**20:.0f} MiB free): free some, or data cannot be written"
    if not postgres.ready(topology):
        yield f"PostgreSQL does not answer at {topology.postgres.host}:{topology.postgres.port}: see {folder.logs}/postgres.log"
    down = [instance for instance in topology.redis if not redis_ready(instance, secrets)]
    for instance in down:
        yield f"{instance.name} does not answer at {instance.host}:{instance.port}: see {folder.logs}/{instance.name}.log"
    if not web_ready(topology):
        yield f"the web tier does not answer at {web_url(topology)}: see {folder.logs}/web.log"
    if not exporter_ready(topology):
        yield f"the exporter does not answer, or does not see the broker: see {folder.logs}/exporter.log"
    if not any(instance.carries_broker for instance in down):
        yield from _broker_and_beat(topology, secrets, folder)
        answering = workers_answering(topology, secrets, ASK_SECONDS)
        for name in (pool.name for pool in topology.pools if pool.name not in answering):
            yield f"no worker of pool {name} answers: see {folder.logs}/worker-{name}.log"


def _broker_and_beat(topology: Topology, secrets: Mapping[str, str], folder: StateFolder) -> Iterator[str]:
    """Whether the broker takes a write, as the user that sends queries; and when beat last swept."""
    user = topology.redis_users()["broker"]
    database = located(topology, "coordination", secrets[user.password_env])
    with cast(Any, client(database)) as redis:
        try:
            redis.set(f"{database.prefix}status", "asked", ex=WRITTEN_SECONDS)
        except RedisError as error:
            yield f"the broker takes no write ({error}): queries cannot be sent; see {folder.logs}/redis.log"
            return
        swept = redis.get(f"{database.prefix}{REAPED_AT}")
    age = time.time() - float(swept) if swept else None
    if age is not None and age > BEAT_SECONDS:
        yield f"beat last swept {age:.0f} s ago, and should every ten: lost queries stay; see {folder.logs}/beat.log"


def broker_url(topology: Topology, secrets: Mapping[str, str]) -> str:
    """The broker's URL, password included."""
    return located(topology, "broker", secrets[topology.redis_users()["broker"].password_env]).url


def workers_answering(topology: Topology, secrets: Mapping[str, str], timeout: float = 1.0) -> set[str]:
    """Names of the worker pools of which a worker answers a ping within `timeout` seconds."""
    user = topology.redis_users()["monitor"]
    url = located(topology, "broker", secrets[user.password_env], user.role).url
    app = cast(Any, Celery(broker=url, set_as_current=False))
    try:
        answers = app.control.ping(timeout=timeout, limit=len(topology.pools))
        return {name.split("@")[0] for answer in answers for name in answer}
    except _AWAY:
        return set()
    finally:
        app.close()


def worker_ready(topology: Topology, pool: Pool, secrets: Mapping[str, str]) -> bool:
    """Whether a worker of `pool` takes messages from the broker."""
    return pool.name in workers_answering(topology, secrets)


def running_tasks(topology: Topology, secrets: Mapping[str, str]) -> int:
    """How many tasks the workers execute now: those that answer within a second, by a broker that answers."""
    app = cast(Any, Celery(broker=broker_url(topology, secrets), set_as_current=False))
    try:
        active: dict[str, list[object]] = app.control.inspect(timeout=1.0).active() or {}
        return sum(len(tasks) for tasks in active.values())
    except _AWAY:
        return 0
    finally:
        app.close()
