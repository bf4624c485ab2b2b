"""The probes of a Redis server, as they are in its pod, on a real server in each of its states."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components import redis_files
from local import binaries
from tests.components.redis_pod import PASSWORD, RedisPod
from tests.components.stacks import recorded, topology_of
from tests.components.test_manifests import chosen
from tests.tls import redis_server
from tests.waiting import until

pytestmark = pytest.mark.services
PROGRAMS: dict[str, Callable[[], str]] = {"valkey": lambda: str(binaries.valkey_server()), "redis": redis_server}
ALIVE, READY = "livenessProbe", "readinessProbe"


class Probed(RedisPod):
    """A server with the probes of the stack `minimal`."""

    def __init__(self, folder: Path, program: str) -> None:
        super().__init__(folder, program)
        (instance,) = topology_of("minimal").redis
        self.instance = instance
        for name, text in redis_files.server_files(instance).items():
            (folder / f"pod-{name}").write_text(text)
        server = chosen(recorded("minimal").manifests(), "StatefulSet", instance.name)
        (self.container,) = server["spec"]["template"]["spec"]["containers"]

    def answers(self, probe: str, password: str = PASSWORD) -> tuple[bool, str]:
        """Whether the probe succeeds, and what it says."""
        command = [
            part.replace(f"{redis_files.CONFIG}/", f"{self.folder}/pod-").replace(str(self.instance.port), str(self.port))
            for part in self.container[probe]["exec"]["command"]
        ]
        environment = {"PATH": os.environ["PATH"], "PORT": str(self.port), "REDISCLI_AUTH": password}
        try:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                env=environment,
                timeout=self.container[probe]["timeoutSeconds"],
            )
        except subprocess.TimeoutExpired:
            return False, "no answer in time"
        return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=PROGRAMS)
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Probed]:
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli not found: install Debian's package redis-tools")
    yield Probed(tmp_path, PROGRAMS[request.param]())


def test_a_server_that_cannot_save_lives_and_serves_and_ends_when_it_is_told_to(redis: Probed) -> None:
    with redis.running("rdb") as client:
        client.set("read", "me")
        # What cannot be replaced by the new snapshot.
        (redis.data / "dump.rdb").mkdir()
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 60, "the snapshot fails")
        alive, said = redis.answers(ALIVE)
        assert (alive, "MISCONF" in said) == (True, True), said
        assert redis.answers(READY) == (True, "")
        assert client.get("read") == b"me"
        assert redis.stop(signal.SIGTERM) == 0
        assert "Error trying to save the DB" in redis.log.read_text()


def test_a_server_that_loads_lives_and_is_not_ready(redis: Probed) -> None:
    with redis.running("rdb") as client:
        for number in range(200):
            client.set(f"key-{number}", os.urandom(4096))
    redis.start("rdb", "key-load-delay 500000", "loading-process-events-interval-bytes 1024")
    try:

        def loads() -> bool:
            return "LOADING" in redis.answers(ALIVE)[1]

        until(loads, 60, "the server loads")
        assert redis.answers(ALIVE)[0]
        ready, said = redis.answers(READY)
        assert (ready, "LOADING" in said) == (False, True), said
    finally:
        redis.stop(signal.SIGKILL)


def test_a_server_with_another_password_lives_and_is_not_ready(redis: Probed) -> None:
    with redis.running("aof"):
        assert redis.answers(ALIVE, "another")[0]
        ready, said = redis.answers(READY, "another")
        assert (ready, "NOAUTH" in said) == (False, True), said
        assert redis.answers(READY) == (True, "")


def test_a_server_that_hangs_or_is_gone_is_dead(redis: Probed) -> None:
    with redis.running("aof") as client:
        process: int = client.info("server")["process_id"]
        os.kill(process, signal.SIGSTOP)
        assert not redis.answers(ALIVE)[0]
        os.kill(process, signal.SIGCONT)
        assert redis.answers(ALIVE)[0]
    assert not redis.answers(ALIVE)[0]
    assert not redis.answers(READY)[0]
