"""The server's configuration and users, as a real server takes them."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis as redis_client
from celery import Celery
from celery.contrib.testing.worker import start_worker
from redis.exceptions import NoPermissionError

from components import redis
from infra import stackfile
from infra.topology import plan
from local import binaries
from runtime.model import Persistence, RedisInstance

CLIENT, OPERATOR = "client-password", "operator-password"


def instance(**changes: Any) -> RedisInstance:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return plan("minimal", stackfile.read("minimal")).redis[0].model_copy(update={"port": port, **changes})


@contextmanager
def server(wanted: RedisInstance, folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """A server with exactly what the pod mounts, at this machine's paths."""
    config = redis.server_config(wanted).replace(f"dir {redis.DATA}", f"dir {folder}").replace(redis.AUTH, str(folder))
    (folder / "redis.conf").write_text(config + "bind 127.0.0.1\n")
    (folder / redis.ACL).write_text(redis.acl_file(CLIENT, OPERATOR))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([str(binaries.valkey_server()), str(folder / "redis.conf")], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                if client(wanted).ping():
                    break
            except redis_client.ConnectionError:
                time.sleep(0.05)
        else:
            pytest.fail((folder / "log").read_text()[-2000:])
        yield process
    finally:
        process.terminate()
        process.wait(30)


def client(wanted: RedisInstance, username: str | None = None, password: str = CLIENT) -> Any:
    return redis_client.Redis(port=wanted.port, username=username, password=password)


def test_a_server_runs_with_what_the_topology_says_and_asks_for_a_password(tmp_path: Path) -> None:
    wanted = instance()
    with server(wanted, tmp_path):
        config = cast("dict[str, str]", client(wanted, redis.OPERATOR, OPERATOR).config_get("*"))
        assert config["maxmemory"] == str(wanted.maxmemory_bytes)
        assert config["maxmemory-policy"] == "volatile-lru"
        assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")
        with pytest.raises(redis_client.AuthenticationError):
            redis_client.Redis(port=wanted.port).ping()


@pytest.mark.parametrize(("persistence", "survives"), [("aof", "kill"), ("aof", "term"), ("rdb", "term"), ("none", None)])
def test_what_survives_a_restart(persistence: Persistence, survives: str | None, tmp_path: Path) -> None:
    wanted = instance(persistence=persistence)
    with server(wanted, tmp_path) as process:
        client(wanted).set("task", "queued")
        # The append-only file reaches the disk within the second.
        time.sleep(1.2)
        if survives == "kill":
            process.kill()
            process.wait(30)
    with server(wanted, tmp_path):
        assert client(wanted).get("task") == (b"queued" if survives else None)


def test_clients_cannot_administer(tmp_path: Path) -> None:
    wanted = instance()
    with server(wanted, tmp_path):
        for command in ("CONFIG GET maxmemory", "FLUSHALL", "KEYS *", "SHUTDOWN", "ACL LIST", "REPLICAOF NO ONE"):
            with pytest.raises(NoPermissionError):
                client(wanted).execute_command(*command.split())


def test_celery_needs_no_more_than_clients_may(tmp_path: Path) -> None:
    """Submit, execute, result, inspect and revoke through the restricted user: the server refuses none of their commands."""
    wanted = instance()
    with server(wanted, tmp_path):
        url = f"redis://:{CLIENT}@127.0.0.1:{wanted.port}"
        app = Celery("test", broker=f"{url}/0", backend=f"{url}/1")
        app.conf.worker_hijack_root_logger = False

        def add(x: int, y: int) -> int:
            return x + y

        task = cast(Any, app).task(name="add")(add)
        with cast(Any, start_worker)(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
            assert task.delay(2, 3).get(timeout=30) == 5
            assert cast(Any, app).control.inspect(timeout=5).ping()
            cast(Any, app).control.revoke("nothing")
        assert client(wanted, redis.OPERATOR, OPERATOR).acl_log() == []
        # The log does record what is refused.
        with pytest.raises(redis_client.ResponseError):
            client(wanted).execute_command("FLUSHALL")
        assert len(client(wanted, redis.OPERATOR, OPERATOR).acl_log()) == 1
