"""Redis over TLS: the servers as the pods would start them, and every client that Superset has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from components.redis import certificate_names, sentinel_name
from components.redis_files import SENTINEL_ACL, SERVER_ACL
from local import binaries
from tests.runtime.conftest import PROJECT, Prepared, free_ports, run_script, until
from tests.runtime.stacks import REDIS_PASSWORDS, topology
from tests.tls import Authority, known_to, redis_server
from topology import redis_acl, valkey_conf
from topology.model import RedisInstance, Topology
from topology.valkey_conf import ServerPaths

pytestmark = pytest.mark.superset

OPERATOR = "operator-password"
CLIENTS = {
    "broker",
    "results",
    "metadata_cache",
    "data_cache",
    "filter_state",
    "explore_form_data",
    "query_results",
    "async_events",
    "rate_limits",
    "coordination",
    "exporter",
}


@dataclass
class World:
    """The servers of a stack on this machine, with the names that they have in a cluster."""

    folder: Path
    program: str
    authority: Authority
    #: Port of each name.
    ports: dict[str, int] = field(default_factory=dict[str, int])
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list[Any])

    def start(self, plan: Topology) -> None:
        """Servers and Sentinels with the very files of the pods, at this machine's paths; without replicas."""
        for instance in plan.redis:
            folder = self.folder / instance.name
            # Sentinel tells clients the one name that this machine itself resolves, in place of the primary's.
            self.authority.sign(folder, [*certificate_names(instance, plan.namespace), "localhost"])
            port = self.serve(folder, instance, self.server_conf(folder, instance), instance.name)
            if not instance.sentinel:
                continue
            config = (
                valkey_conf.sentinel_conf(instance, self.paths(folder, SENTINEL_ACL))
                + f"sentinel monitor {instance.name} localhost {port} 1\n"
                + valkey_conf.monitor_conf(instance)
                + f"sentinel auth-pass {instance.name} {OPERATOR}\n"
            )
            self.serve(folder, instance, config, sentinel_name(instance), "--sentinel")

    def paths(self, folder: Path, acl_file: str) -> ServerPaths:
        return ServerPaths(str(folder), str(folder / acl_file), certificates=str(folder), bind="127.0.0.1")

    def server_conf(self, folder: Path, instance: RedisInstance) -> str:
        return valkey_conf.server_conf(instance, self.paths(folder, SERVER_ACL))

    def serve(self, folder: Path, instance: RedisInstance, config: str, name: str, *options: str) -> int:
        port = self.ports[name] = free_ports(1)
        listens = f"tls-port {26379 if options else instance.port}"
        assert listens in config
        # There is no replica here.
        config = config.replace(listens, f"tls-port {port}").replace("min-replicas-to-write 1", "min-replicas-to-write 0")
        for file, write in ((SERVER_ACL, redis_acl.server_acl), (SENTINEL_ACL, redis_acl.sentinel_acl)):
            (folder / file).write_text(known_to(self.program, write(instance, REDIS_PASSWORDS, OPERATOR)))
        path = folder / f"{name}.conf"
        path.write_text(config)
        with (folder / f"{name}.log").open("wb") as log:
            self.processes.append(subprocess.Popen([self.program, str(path), *options], stdout=log, stderr=log))

        def answers() -> bool:
            try:
                return bool(self.operator(name, instance).ping())
            except redis_client.ConnectionError:
                return False

        until(answers, 20, f"{name} answers over TLS")
        return port

    def operator(self, name: str, instance: RedisInstance, **options: Any) -> Any:
        trusted: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self.folder / instance.name / "ca.crt")}
        login: dict[str, Any] = {"username": redis_acl.OPERATOR, "password": OPERATOR}
        return redis_client.Redis(host="127.0.0.1", port=self.ports[name], **login, **(trusted | options))


def planned(prepared: Prepared, stack: str, folder: Path) -> Topology:
    """A stack with TLS, its authorities' files in `folder`, and the metadata database of this machine."""
    plan = topology(stack, redis={"tls": {"kind": "secret", "secret": "redis-tls"}})
    instances = [
        each.model_copy(
            update={
                "tls": each.tls and each.tls.model_copy(update={"ca_file": str(folder / each.name / "ca.crt")}),
                "replicas": 0,
            }
        )
        for each in plan.redis
    ]
    return prepared.services.on_loopback(plan.model_copy(update={"redis": tuple(instances)}))


@pytest.fixture(params=["minimal", "high-throughput"])
def stack(request: pytest.FixtureRequest) -> str:
    """One server for everything; and two behind Sentinels, with Celery's results on Redis."""
    return request.param


@pytest.fixture
def world(stack: str, prepared: Prepared, tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path / "redis", redis_server(), Authority(tmp_path / "authority"))
    found.folder.mkdir()
    try:
        found.start(planned(prepared, stack, found.folder))
        yield found
    finally:
        for process in found.processes:
            process.terminate()
        for process in found.processes:
            process.wait(20)


def used(world: World, prepared: Prepared, plan: Topology, *options: str) -> dict[str, str]:
    env = prepared.services.process_environment(plan, "web", f"tls-{plan.stack}")
    return run_script("environment.redis_clients_process", env, json.dumps(world.ports), *options)


def test_every_client_works_over_tls_and_refuses_a_server_that_it_cannot_verify(
    stack: str, world: World, prepared: Prepared, tmp_path: Path
) -> None:
    plan = planned(prepared, stack, world.folder)
    assert used(world, prepared, plan) == dict.fromkeys(CLIENTS, "ok")
    for instance in plan.redis:
        with pytest.raises((redis_client.ConnectionError, redis_client.TimeoutError)):
            world.operator(instance.name, instance, ssl=False, ssl_ca_certs=None, socket_timeout=3).ping()

    # Another authority's certificate, of the very same subject.
    for instance in plan.redis:
        other = Authority(tmp_path / f"other-{instance.name}")
        (world.folder / instance.name / "other.crt").write_bytes(other.certificate.read_bytes())
    elsewhere = plan.model_copy(
        update={
            "redis": tuple(
                each.model_copy(
                    update={
                        "tls": each.tls
                        and each.tls.model_copy(update={"ca_file": str(world.folder / each.name / "other.crt")})
                    }
                )
                for each in plan.redis
            )
        }
    )
    refused = used(world, prepared, elsewhere, "--refused")
    assert refused.keys() == CLIENTS
    # Behind Sentinels some say only that none of them answered.
    reasons = ("certificate verify failed", *(("No master found",) if stack != "minimal" else ()))
    assert {name: said for name, said in refused.items() if not any(reason in said for reason in reasons)} == {}


def test_a_certificate_of_another_name_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    """Whoever has some certificate of the same authority is not the server."""
    plan = planned(prepared, "minimal", tmp_path / "redis")
    found = World(tmp_path / "redis", redis_server(), Authority(tmp_path / "authority"))
    found.folder.mkdir()
    (instance,) = plan.redis
    try:
        found.authority.sign(found.folder / instance.name, ["redis.another-namespace.svc"])
        folder = found.folder / instance.name
        found.serve(folder, instance, found.server_conf(folder, instance), instance.name)
        refused = used(found, prepared, plan, "--refused")
    finally:
        for process in found.processes:
            process.terminate()
            process.wait(20)
    assert {name: said for name, said in refused.items() if "Hostname mismatch" not in said} == {}
    assert refused.keys() == CLIENTS


@pytest.mark.parametrize("stack", ["minimal"], indirect=True)
def test_the_init_job_looks_at_a_server_that_exists_over_tls(world: World, prepared: Prepared) -> None:
    """One that is right is worked with; one that would lose tasks stops the job before it does anything."""
    (instance,) = planned(prepared, "minimal", world.folder).redis
    where = {
        "host": "localhost",
        "port": world.ports["redis"],
        "username": redis_acl.OPERATOR,
        "tls": True,
        "ca_secret": "ca",
        "cidrs": ["127.0.0.0/8"],
    }
    plan = topology("minimal", redis={"broker": {"existing": where}})
    (server,) = plan.redis
    assert server.tls
    server = server.model_copy(update={"tls": instance.tls})
    plan = prepared.services.on_loopback(plan.model_copy(update={"redis": (server,)}))
    env = prepared.services.process_environment(plan, "init", "tls-existing")
    env |= {user.password_env: OPERATOR for user in server.users}

    def init() -> subprocess.CompletedProcess[str]:
        command = [str(binaries.superset_python()), "-m", "runtime.start.init", "--wait=5"]
        return subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True)

    done = init()
    assert (done.returncode, done.stderr.count("problem")) == (0, 0), done.stderr[-2000:]
    operator = world.operator("redis", instance)
    operator.config_set("maxmemory-policy", "allkeys-lru")
    operator.config_set("appendonly", "no")
    operator.config_set("save", "")
    done = init()
    assert done.returncode == 1
    assert "2 problems with the Redis servers that exist; nothing was changed" in done.stderr
    assert "1. maxmemory-policy of redis at localhost" in done.stderr
    assert "2. persistence of redis at localhost" in done.stderr
    assert "Superset started" not in done.stdout
    assert OPERATOR not in done.stdout + done.stderr
