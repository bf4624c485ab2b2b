"""Every server of a stack in a network of its own: `python -m tests.components.listening FOLDER both|ipv6|ipv4`.

`ipv6` is a host without IPv4, `ipv4` one where IPv6 is switched off. It runs in a network namespace
(`unshare --user --map-root-user --net`), as `test_listening.py` starts it, and prints one JSON line: the addresses at which each
server was reached.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry

from components.redis_files import SENTINEL_ACL, SERVER_ACL, SERVER_PATHS
from local import binaries
from runtime.observability import exporter
from tests.components.test_postgres import Server
from tests.plain import without_tls
from tests.waiting import until
from topology import redis_acl, stack_file, valkey_conf
from topology.commands import TOPOLOGY_ENV, web
from topology.model import SENTINEL_PORT
from topology.plan import plan

PROJECT = Path(__file__).resolve().parents[2]
ADDRESSES = ("127.0.0.1", "::1")


def main(folder: Path, host: str) -> None:
    run("ip", "link", "set", "lo", "up")
    if host == "ipv6":
        run("ip", "-4", "address", "flush", "dev", "lo")
    if host == "ipv4":
        run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    # As the kubelet writes it.
    (folder / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    run("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
    topology = plan("minimal", stack_file.read("minimal"))
    file = folder / "topology.json"
    file.write_text(topology.model_dump_json())
    (instance,) = topology.redis
    config = folder / "redis.conf"
    paths = valkey_conf.ServerPaths(str(folder), str(folder / SERVER_ACL))
    assert paths.bind is SERVER_PATHS.bind is None
    config.write_text(valkey_conf.server_conf(instance, paths))
    (folder / SERVER_ACL).write_text(redis_acl.server_acl(instance, {user.role: "x" for user in instance.users}, "x"))
    watched = next(each for each in plan("enterprise", without_tls(stack_file.read("enterprise"))).redis if each.sentinel)
    sentinel, sentinel_paths = folder / "sentinel.conf", valkey_conf.ServerPaths(str(folder), str(folder / SENTINEL_ACL))
    (folder / SENTINEL_ACL).write_text(redis_acl.sentinel_acl(watched, {user.role: "x" for user in watched.users}, "x"))
    monitored = f"sentinel monitor {watched.name} localhost {instance.port} 1\n"
    sentinel.write_text(valkey_conf.sentinel_conf(watched, sentinel_paths) + monitored + valkey_conf.monitor_conf(watched))
    server = str(binaries.valkey_server())
    python = binaries.superset_python()
    # Its command line, but for Superset itself, which takes half a minute to load.
    gunicorn = [str(python.parent / "gunicorn"), *web(topology)[1:-1], "--workers=1", "wsgiref.simple_server:demo_app"]
    environment = os.environ | {TOPOLOGY_ENV: str(file), "PYTHONPATH": str(PROJECT)}
    with ExitStack() as running, (folder / "log").open("wb") as log:
        commands = (
            [server, str(config)],
            [server, str(sentinel), "--sentinel"],
            [arg for arg in gunicorn if arg != "--preload"],
        )
        for command in commands:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            running.callback(process.wait, 60)
            running.callback(process.terminate)
        metrics = exporter.server(topology, CollectorRegistry())
        running.callback(metrics.server_close)
        running.callback(metrics.shutdown)
        threading.Thread(target=metrics.serve_forever, daemon=True).start()
        postgres = Server(Path(running.enter_context(tempfile.TemporaryDirectory(prefix="pg-"))), 5432)
        prepared = postgres.prepare("password")
        assert prepared.returncode == 0, prepared.stdout + prepared.stderr
        running.enter_context(postgres.running())
        ports = {
            "redis": instance.port,
            "sentinel": SENTINEL_PORT,
            "web": topology.web.port,
            "exporter": topology.exporter.port,
            "postgres": postgres.spec.port,
        }
        for name, port in ports.items():
            until(lambda port=port: any(reached(each, port) for each in ADDRESSES), 60, f"{name} listens; {folder / 'log'}")
        print(json.dumps({name: [each for each in ADDRESSES if reached(each, port)] for name, port in ports.items()}))


def reached(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
