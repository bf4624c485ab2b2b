"""The container of a Redis server without replicas on this machine: what its pod mounts, its command, and its volume."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis as redis_client

from components.redis_files import SERVER_ACL
from runtime.start import start_script
from tests.tls import known_to
from tests.waiting import free_port, until
from topology import redis_acl, stack_file, valkey_conf
from topology.plan import plan
from topology.settings.redis import Persistence
from topology.valkey_conf import ServerPaths

PASSWORD = "operator-password"


class RedisPod:
    """A server that is started with the pod's own script; its volume is `folder`/data, and `program` is the server's."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self.program, self.port = folder, program, free_port()
        self.data, self.log = folder / "data", folder / "log"
        self.data.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, persistence: Persistence, *more: str, **changes: Any) -> None:
        """Start the container with `persistence`, `changes` of the instance and `more` lines of configuration; does not wait."""
        (planned,) = plan("minimal", stack_file.read("minimal")).redis
        instance = planned.model_copy(update={"port": self.port, "persistence": persistence, **changes})
        users, config = self.folder / SERVER_ACL, self.folder / "redis.conf"
        text = redis_acl.server_acl(instance, {user.role: "a-client" for user in instance.users}, PASSWORD)
        users.write_text(known_to(self.program, text))
        paths = ServerPaths(str(self.data), str(users), bind="127.0.0.1")
        config.write_text(valkey_conf.server_conf(instance, paths) + "".join(f"{line}\n" for line in more))
        command = ["sh", str(start_script()), str(self.data), str(config), self.program, str(config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def client(self, database: int = 0) -> Any:
        """A client as the operator."""
        return redis_client.Redis(port=self.port, db=database, username=redis_acl.OPERATOR, password=PASSWORD)

    def loaded(self) -> bool:
        """Whether it answers from its data; AssertionError with its log where it has ended."""
        assert self.ended() is None, self.log.read_text()
        try:
            return self.client().dbsize() >= 0
        except redis_client.RedisError:
            return False

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self._process
        return self._process.poll()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send `how`, wait for the end, and end what is left of the container; the exit code."""
        assert self._process
        with suppress(ProcessLookupError):
            self._process.send_signal(how)
        code = self._process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return code

    @contextmanager
    def running(self, persistence: Persistence, *, how: signal.Signals = signal.SIGTERM, **changes: Any) -> Generator[Any]:
        """A client of a server that has loaded its data; `how` says how it ends."""
        self.start(persistence, **changes)
        try:
            until(self.loaded, 60, f"the server answers; see {self.log}")
            yield self.client()
        finally:
            self.stop(how)
