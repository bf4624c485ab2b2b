"""A stack's broker and its exporter of queue metrics on this machine, beside a cluster whose pods are simulated."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import redis

from local.binaries import superset_python, valkey_server
from tests import tls
from tests.cluster.conftest import Rendered
from tests.cluster.control_plane import ControlPlane, wait_until
from tests.cluster.deployed import identity
from topology import valkey_conf
from topology.model import Topology
from topology.valkey_conf import ServerPaths

PROJECT = Path(__file__).resolve().parents[2]


class Queues:
    """The broker of a rendered stack, with the users of its Secret, and its queues; `sentinel` is the port of a Sentinel.

    With `certificates` (a folder with those of localhost) both speak TLS only.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        rendered: Rendered,
        folder: Path,
        port: int,
        sentinel: int,
        certificates: Path | None = None,
    ) -> None:
        self._cluster = cluster
        self._rendered = rendered
        self._folder = folder
        self._exporter_port = 0
        self.port, self.sentinel = port, sentinel
        secret = next(each for each in rendered.manifests if identity(each) == "Secret/redis-broker-auth")["stringData"]
        self._password: str = secret["broker-password"]
        self._server = tls.redis_server() if certificates else str(valkey_server())
        for file in ("users.acl", "sentinel.acl"):
            (folder / file).write_text(tls.known_to(self._server, secret[file]))
        instance = self._topology().instance("redis-broker")
        alone = instance.model_copy(update={"port": port, "replicas": 0, "sentinel": False, "persistence": "none"})
        (folder / "valkey.conf").write_text(valkey_conf.server_conf(alone, self._paths("users.acl", certificates)))
        # By its name, as pods know it: certificates have names.
        (folder / "sentinel.conf").write_text(
            valkey_conf.sentinel_conf(instance, self._paths("sentinel.acl", certificates), sentinel)
            + f"sentinel monitor redis-broker localhost {port} 1\n"
            + valkey_conf.monitor_conf(instance)
            + f"sentinel auth-pass redis-broker {secret['operator-password']}\n"
        )
        encryption: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(certificates / "ca.crt")} if certificates else {}
        self._client = redis.Redis(
            host="localhost", port=port, username="broker", password=self._password, decode_responses=True, **encryption
        )

    def _paths(self, acl_file: str, certificates: Path | None) -> ServerPaths:
        return ServerPaths(str(self._folder), str(self._folder / acl_file), str(certificates or ""), bind="127.0.0.1")

    def _topology(self) -> Topology:
        configuration = next(each for each in self._rendered.manifests if identity(each) == "ConfigMap/superset-topology")
        return Topology.model_validate_json(configuration["data"]["topology.json"])

    def start(self) -> None:
        processes = self._cluster.processes
        processes.start("valkey", [self._server, self._folder / "valkey.conf"])
        processes.start("sentinel", [self._server, self._folder / "sentinel.conf", "--sentinel"])
        wait_until(self._answers, "Valkey answers")

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        self._client.close()
        running = self._cluster.processes.running
        self._cluster.processes.stop(*(each for each in ("exporter", "sentinel", "valkey") if each in running))

    def start_exporter(self, port: int) -> str:
        """Serve the stack's queue metrics on `port`; the URL."""
        topology: dict[str, Any] = json.loads(self._topology().model_dump_json())
        topology["platform"] = "local"
        topology["exporter"] |= {"host": "127.0.0.1", "port": port}
        for instance in topology["redis"]:
            instance |= {"host": "127.0.0.1", "port": self.port, "sentinel": False}
        path = self._folder / "topology.json"
        path.write_text(json.dumps(topology))
        environment = {
            "SUPERSET_ASYNC_TOPOLOGY": str(path),
            "REDIS_BROKER_PASSWORD": self._password,
            "PYTHONPATH": str(PROJECT),
        }
        self._cluster.processes.start("exporter", [superset_python(), "-m", "runtime.observability.exporter"], environment)
        return f"http://127.0.0.1:{port}/metrics"

    def stop_exporter(self) -> None:
        self._cluster.processes.stop("exporter")

    def send(self, queue: str, count: int) -> None:
        """Add messages that wait."""
        self._client.rpush(queue, *["task"] * count)

    def take(self, queue: str, count: int) -> None:
        """Add messages that a worker was given and has not acknowledged."""
        tags = [f"{queue}-{number}" for number in range(count)]
        message = json.dumps([{"body": "", "headers": {}, "properties": {}}, "", queue])
        self._client.hset("unacked", mapping=dict.fromkeys(tags, message))
        cast(Any, self._client).zadd("unacked_index", dict.fromkeys(tags, time.time()))

    def purge(self, queue: str) -> None:
        """Remove those that wait."""
        self._client.delete(queue)
