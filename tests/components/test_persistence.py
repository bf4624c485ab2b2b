"""What a Redis server holds survives a change of `persistence`, in both directions, and a volume that was full."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local import binaries
from tests.components.redis_pod import RedisPod
from tests.components.test_sentinel import PROJECT, isolated
from tests.tls import redis_server
from tests.waiting import until
from topology.settings.redis import Persistence

pytestmark = pytest.mark.services
__all__ = ["isolated"]
PROGRAMS: dict[str, Callable[[], str]] = {"valkey": lambda: str(binaries.valkey_server()), "redis": redis_server}
KILL, TERM = signal.SIGKILL, signal.SIGTERM


@pytest.fixture(params=PROGRAMS)
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> RedisPod:
    return RedisPod(tmp_path, PROGRAMS[request.param]())


def test_a_change_of_persistence_and_back_loses_nothing(redis: RedisPod) -> None:
    """Snapshots and an append-only file in turns: ended as its kind promises to survive it, with a write in each."""
    turns: list[tuple[Persistence, signal.Signals]] = [
        ("rdb", TERM),
        ("aof", KILL),
        ("rdb", TERM),
        ("aof", TERM),
        ("rdb", TERM),
    ]
    for turn, (persistence, how) in enumerate(turns):
        with redis.running(persistence, how=how) as client:
            assert client.dbsize() == turn
            assert client.config_get("appendonly")["appendonly"] == ("yes" if persistence == "aof" else "no")
            client.rpush(f"queue-{turn}", "task")
            if turn == 0:
                redis.client(3).set("cached", "value", ex=3600)
            assert redis.client(3).ttl("cached") > 3000
            until(lambda client=client: client.info("persistence").get("aof_buffer_length", 0) == 0, 30, "it is written")


def test_a_server_that_was_killed_is_converted_as_it_was(redis: RedisPod) -> None:
    """Its dump is older than its append-only file: the file counts, and goes once it is a dump."""
    with redis.running("aof") as client:
        client.set("first", "1")
    with redis.running("aof", how=KILL) as client:
        client.set("second", "2")
        until(lambda: client.info("persistence")["aof_buffer_length"] == 0, 30, "it is written")
    with redis.running("rdb", how=KILL) as client:
        assert sorted(client.keys()) == [b"first", b"second"]
        client.delete("second")
        client.save()
    assert {path.name for path in redis.data.iterdir()} == {"dump.rdb"}
    with redis.running("aof") as client:
        assert client.keys() == [b"first"]


def test_without_persistence_nothing_old_comes_back(redis: RedisPod) -> None:
    for persistence in ("aof", "rdb"):
        with redis.running(persistence) as client:
            assert client.dbsize() == 0
            client.set("old", "1")
        with redis.running("none") as client:
            assert client.dbsize() == 0


def test_a_file_that_cannot_be_read_is_left_as_it_is(redis: RedisPod) -> None:
    """A conversion that fails ends the container with the reason, and the next start tries again."""
    with redis.running("aof") as client:
        client.set("kept", "1")
    (base,) = (redis.data / "appendonlydir").glob("*.base.rdb")
    whole = base.read_bytes()
    base.write_bytes(b"REDIS0011" + b"\x00" * 40)
    redis.start("rdb")
    until(lambda: redis.ended() is not None, 60, "the container ends")
    assert redis.ended() == 1
    assert "the append-only file could not be read, and stays as it is" in redis.log.read_text()
    base.write_bytes(whole)
    with redis.running("rdb") as client:
        assert client.keys() == [b"kept"]


def test_what_a_killed_server_left_half_written_goes(redis: RedisPod) -> None:
    with redis.running("aof") as client:
        client.set("kept", "1")
    left = [redis.data / "temp-17.rdb", redis.data / "temp-rewriteaof-bg-17.aof", redis.data / "appendonlydir/temp-x"]
    for path in left:
        path.write_bytes(b"half")
    with redis.running("aof") as client:
        assert client.get("kept") == b"1"
    assert not [path for path in left if path.exists()]


def test_a_container_that_is_stopped_while_it_converts_ends_and_begins_again(redis: RedisPod) -> None:
    with redis.running("aof") as client:
        client.set("kept", "1")
    redis.start("rdb")
    until((redis.data / "converting.sock").exists, 60, "it converts")
    assert redis.stop() in (0, 143)
    with redis.running("rdb") as client:
        assert client.get("kept") == b"1"


@pytest.mark.parametrize("persistence", ["aof", "rdb"])
def test_a_full_disk_is_survived(isolated: list[str], persistence: str, tmp_path: Path) -> None:
    """At `maxmemory`, with values that do not compress: see full_disk.py for the steps."""
    command = [
        *isolated,
        sys.executable,
        "-m",
        "tests.components.full_disk",
        str(tmp_path),
        PROGRAMS["valkey"](),
        persistence,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    steps = [json.loads(line)["step"] for line in done.stdout.splitlines()]
    assert len(steps) == 8, steps
