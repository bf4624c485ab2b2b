"""The server's configuration and users, as a real server takes them."""

from __future__ import annotations

import contextlib
import gc
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import redis as redis_client
from celery import Celery
from celery.contrib.testing.worker import start_worker
from redis.exceptions import NoPermissionError

from components.redis_files import SERVER_ACL
from local import binaries
from runtime.start import start_script
from tests.plain import without_tls
from tests.waiting import until
from topology import redis_acl, stack_file, valkey_conf
from topology.model import RedisInstance, RedisRole
from topology.plan import plan
from topology.settings.redis import Persistence
from topology.valkey_conf import ServerPaths

OPERATOR = "operator-password"
PASSWORDS: dict[RedisRole, str] = {role: f"{role}-password" for role in get_args(RedisRole)}


def instance(**changes: Any) -> RedisInstance:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return plan("minimal", stack_file.read("minimal")).redis[0].model_copy(update={"port": port, **changes})


@contextmanager
def server(wanted: RedisInstance, folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """A server with exactly what the pod mounts, at this machine's paths, started as the pod starts it."""
    paths = ServerPaths(data=str(folder), acl_file=str(folder / SERVER_ACL), bind="127.0.0.1")
    (folder / "redis.conf").write_text(valkey_conf.server_conf(wanted, paths))
    (folder / SERVER_ACL).write_text(redis_acl.server_acl(wanted, PASSWORDS, OPERATOR))
    with (folder / "log").open("ab") as log:
        config, program = str(folder / "redis.conf"), str(binaries.valkey_server())
        process = subprocess.Popen(["sh", str(start_script()), str(folder), config, program, config], stdout=log, stderr=log)
    try:
        until(lambda: answers(wanted), 20, f"the server answers; see {folder / 'log'}")
        yield process
    finally:
        process.terminate()
        process.wait(30)


def answers(wanted: RedisInstance) -> bool:
    try:
        return bool(client(wanted, redis_acl.OPERATOR).ping())
    except redis_client.ConnectionError:
        return False


def client(wanted: RedisInstance, username: str = "broker", **options: Any) -> Any:
    password = {**PASSWORDS, redis_acl.OPERATOR: OPERATOR}[username]
    return redis_client.Redis(port=wanted.port, username=username, password=password, **options)


@pytest.mark.services
def test_a_server_runs_with_what_the_topology_says_and_asks_for_a_password(tmp_path: Path) -> None:
    wanted = instance()
    with server(wanted, tmp_path):
        config = cast("dict[str, str]", client(wanted, redis_acl.OPERATOR).config_get("*"))
        assert config["maxmemory"] == str(wanted.maxmemory_bytes)
        assert config["maxmemory-policy"] == "volatile-lru"
        assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")
        with pytest.raises(redis_client.AuthenticationError):
            redis_client.Redis(port=wanted.port).ping()


@pytest.mark.services
@pytest.mark.parametrize(("persistence", "survives"), [("aof", "kill"), ("aof", "term"), ("rdb", "term"), ("none", None)])
def test_what_survives_a_restart(persistence: Persistence, survives: str | None, tmp_path: Path) -> None:
    wanted = instance(persistence=persistence)
    with server(wanted, tmp_path) as process:
        client(wanted).set("unacked", "task")
        # The append-only file reaches the disk within the second.
        time.sleep(1.2)
        if survives == "kill":
            process.kill()
            process.wait(30)
    with server(wanted, tmp_path):
        assert client(wanted).get("unacked") == (b"task" if survives else None)


def listen(receiver: Any) -> None:
    """Capture events for a few seconds."""
    with contextlib.suppress(TimeoutError):
        receiver.capture(timeout=3, limit=None)


ADMINISTRATION = (
    "CONFIG GET maxmemory",
    "CONFIG SET maxmemory 0",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "SHUTDOWN",
    "ACL LIST",
    "REPLICAOF NO ONE",
    "LATENCY RESET",
    "CLIENT KILL TYPE normal",
    "MONITOR",
    "SWAPDB 0 3",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "INFO",
)


@pytest.mark.services
@pytest.mark.parametrize("stack", ["minimal", "enterprise"])
def test_nobody_but_the_operator_administers(stack: str, tmp_path: Path) -> None:
    for number, each in enumerate(plan(stack, without_tls(stack_file.read(stack))).redis):
        wanted = each.model_copy(update={"port": instance().port, "replicas": 0, "sentinel": False})
        folder = tmp_path / str(number)
        folder.mkdir()
        with server(wanted, folder):
            for user in wanted.users:
                for command in ADMINISTRATION:
                    if command == "INFO":
                        # How much memory a server has left is told by whoever uses it.
                        assert client(wanted, user.username).info("memory")["used_memory"] > 0
                        continue
                    with pytest.raises(NoPermissionError):
                        client(wanted, user.username).execute_command(*command.split())
            assert client(wanted, redis_acl.OPERATOR).execute_command("DBSIZE") == 0
            for name, password in (("default", ""), ("default", OPERATOR), ("nobody", OPERATOR)):
                with pytest.raises(redis_client.AuthenticationError):
                    redis_client.Redis(port=wanted.port, username=name, password=password).ping()


@pytest.mark.services
def test_on_one_server_the_users_cannot_touch_each_others_keys(tmp_path: Path) -> None:
    """In any database, by any command, also through a script; and only the broker reaches the workers' remote control."""
    wanted = instance()
    with server(wanted, tmp_path):
        own: dict[str, list[str]] = {
            "broker": ["default", "default\x06\x169", "unacked", "_kombu.binding.default", "async-events-1"],
            "cache": ["data_cache:1", "query_results:1", "metadata_cache:x", "rate_limits:LIMITER/x"],
        }
        for mine, others in (("broker", "cache"), ("cache", "broker")):
            for database in (0, 4):
                connection = client(wanted, mine, db=database)
                for key in own[mine]:
                    connection.delete(key)
                    assert connection.lpush(key, "1") == connection.llen(key) == 1
                for key in own[others]:
                    commands = (
                        ("GET", key),
                        ("LLEN", key),
                        ("DEL", key),
                        ("SET", key, "x"),
                        ("RENAME", own[mine][0], key),
                        ("COPY", key, own[mine][0], "REPLACE"),
                        ("EVAL", f"return redis.call('get', '{key}')", "0"),
                    )
                    for command in commands:
                        with pytest.raises(redis_client.ResponseError, match=r"(?i)permission|NOPERM"):
                            connection.execute_command(*command)
        assert client(wanted, "broker").publish("/0.celery.pidbox", "shutdown") == 0
        for mine, channel in (("cache", "/0.celery.pidbox"), ("cache", "x"), ("broker", "__sentinel__:hello")):
            with pytest.raises(NoPermissionError):
                client(wanted, mine).publish(channel, "shutdown")


def test_no_pattern_of_one_user_matches_what_is_the_others() -> None:
    """Whatever a queue is called: names that are, or begin like, a cache's prefix too."""
    queues = ["data", "data-cache", "rate", "query-results", "filter", "a", "x" * 40]
    config = {"topology": "minimal", "celery": {"queues": ["default", *queues]}, "pools": {queue: {} for queue in queues}}
    (wanted,) = plan("test", config).redis
    broker, cache = (next(user for user in wanted.users if user.role == role) for role in ("broker", "cache"))
    assert len(broker.keys) > 2 * len(queues)
    for pattern in cache.keys:
        prefix = pattern.removesuffix("*")
        assert prefix.endswith(":")
        for rest in ("", "3", "63", "x" * 40):
            key = prefix + rest
            assert not [mine for mine in broker.keys if fnmatchcase(key, mine)], key


@pytest.mark.services
def test_celery_needs_no_more_than_its_user_may(tmp_path: Path) -> None:
    """Submit, priorities, retry, result, inspect, revoke, events: the server refuses none of it to the broker's user."""
    wanted = instance()
    with server(wanted, tmp_path):
        url = f"redis://broker:{PASSWORDS['broker']}@127.0.0.1:{wanted.port}"
        app = Celery("test", broker=f"{url}/0", backend=f"{url}/1")
        app.conf.worker_hijack_root_logger = False
        app.conf.task_default_queue = "default"
        app.conf.worker_send_task_events = True

        def add(x: int, y: int) -> int:
            return x + y

        task = cast(Any, app).task(name="add")(add)
        with cast(Any, start_worker)(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
            heard: list[str] = []
            with app.connection_for_read() as connection:
                receiver = cast(Any, app).events.Receiver(
                    connection, handlers={"*": lambda event: heard.append(event["type"])}
                )
                receiver_thread = threading.Thread(target=listen, args=(receiver,))
                receiver_thread.start()
                assert task.delay(2, 3).get(timeout=30) == 5
                assert task.apply_async((2, 3), priority=9).get(timeout=30) == 5
                assert task.apply_async((2, 3), countdown=1).get(timeout=30) == 5
                receiver_thread.join(30)
            assert "task-succeeded" in heard
            # Results that are dropped later would look for the server.
            gc.collect()
            assert cast(Any, app).control.inspect(timeout=5).ping()
            cast(Any, app).control.revoke("nothing")
        assert client(wanted, redis_acl.OPERATOR).acl_log() == []
        # The log does record what is refused.
        with pytest.raises(redis_client.ResponseError):
            client(wanted).execute_command("FLUSHALL")
        assert len(client(wanted, redis_acl.OPERATOR).acl_log()) == 1
