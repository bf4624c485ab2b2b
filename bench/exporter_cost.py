"""`python -m bench.exporter_cost`: what the exporter costs while empty Celery tasks are sent and executed.

A broker, the exporter, and a worker that counts its tasks as the platform's do, each a process of its own; this one sends a
steady `--rate` and asks the exporter as Prometheus does. Before that the same without tasks. Prints processor time and memory.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.world import free_ports
from local import binaries
from topology import redis_acl
from topology.commands import ROLE_ENV, TOPOLOGY_ENV
from topology.model import RedisRole, Topology
from topology.plan import plan

PROJECT = Path(__file__).resolve().parents[1]
CONCURRENCY = 2


@dataclass(frozen=True)
class Asked:
    """Tasks a second, for how many seconds, and seconds between two scrapes."""

    rate: float
    seconds: float
    every: float


@dataclass(frozen=True)
class Used:
    """Of the exporter: share of a processor, bytes of memory (RSS), seconds and bytes of one answer, and the tasks that it says
    were completed.
    """

    processor: float
    memory: int
    answer_seconds: float
    answer_bytes: int
    series: int
    completed: float

    def __str__(self) -> str:
        return (
            f"{self.processor:.1%} of a processor, {self.memory / 2**20:.0f} MiB; an answer of {self.series} series has "
            f"{self.answer_bytes / 1024:.0f} KiB and takes {self.answer_seconds * 1000:.0f} ms"
        )


def environment(topology: Topology, folder: Path, role: str) -> dict[str, str]:
    """What a process of the stack gets; secrets are random and of this run alone."""
    names = [
        "SUPERSET_SECRET_KEY",
        "ASYNC_QUERIES_JWT_SECRET",
        topology.postgres.password_env,
        *topology.message_key_envs().values(),
        *(user.password_env for user in topology.redis_users().values()),
    ]
    given = {name: secrets.token_hex(24) for name in names}
    (folder / "topology.json").write_text(topology.model_dump_json())
    return {
        **given,
        "PATH": f"{binaries.superset_python().parent}:/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        "LANG": "C.UTF-8",
        TOPOLOGY_ENV: str(folder / "topology.json"),
        ROLE_ENV: role,
    }


@contextmanager
def running(command: list[str], env: dict[str, str], folder: Path, name: str) -> Generator[psutil.Process]:
    """A process until the block ends."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=PROJECT, stdout=log, stderr=log)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def measure(exporter: psutil.Process, url: str, given: Asked, send: Callable[[], None] | None = None) -> Used:
    """Ask at `url` as `given` says, and `send` tasks in between."""
    before, began, sent, memory = exporter.cpu_times(), time.monotonic(), 0, 0
    due, text, took = began, "", [0.0]
    while (now := time.monotonic()) - began < given.seconds:
        if now >= due:
            due += given.every
            asked = time.monotonic()
            text = httpx.get(url, timeout=30).text
            took.append(time.monotonic() - asked)
            memory = max(memory, exporter.memory_info().rss)
        if send and sent < given.rate * (now - began):
            send()
            sent += 1
        else:
            time.sleep(0.001)
    after = exporter.cpu_times()
    spent = after.user + after.system - before.user - before.system
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    print(f"{sent} sent in {given.seconds:.0f} s")
    return Used(spent / given.seconds, memory, max(took), len(text), len(samples), completed(url))


def completed(url: str) -> float:
    """Tasks that were executed so far, as the exporter says."""
    families = text_string_to_metric_families(httpx.get(url, timeout=30).text)
    samples = (sample for family in families for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "celery_task_completed_total")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100.0, help="tasks a second")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two scrapes")
    given = Asked(**vars(parser.parse_args()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exporter-cost-")))
        names = ("redis_port", "exporter_port", "web_port", "postgres_port")
        keys = {"topology": "minimal", "platform": "local", "local": dict(zip(names, free_ports(len(names)), strict=True))}
        topology = plan("bench", keys)
        (instance,) = topology.redis
        env = environment(topology, folder, "worker")
        passwords: dict[RedisRole, str] = {role: env[user.password_env] for role, user in topology.redis_users().items()}
        (folder / "users.acl").write_text(redis_acl.server_acl(instance, passwords, secrets.token_hex(24)))
        settings = ["--port", str(instance.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        server = [str(binaries.valkey_server()), *settings, "--aclfile", str(folder / "users.acl")]
        stack.enter_context(running(server, env, folder, "redis"))
        python = str(binaries.superset_python())
        url = f"http://127.0.0.1:{topology.exporter.port}/metrics"
        exporter = stack.enter_context(running([python, "-m", "runtime.observability.exporter"], env, folder, "exporter"))
        for _ in range(200):
            try:
                httpx.get(url, timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        print("no tasks:", measure(exporter, url, given))
        worker = [python, "-m", "celery", "--quiet", "--app=bench.empty_task", "worker", f"--concurrency={CONCURRENCY}"]
        worker += ["--queues=default", "--hostname=empty@%h", "--without-gossip", "--without-mingle"]
        at_work = stack.enter_context(running(worker, env, folder, "worker"))
        os.environ.update(env | {ROLE_ENV: "web"})
        # The application reads its settings from the environment.
        from bench.empty_task import NAME, QUEUE, app

        def send() -> None:
            app.send_task(NAME, queue=QUEUE, ignore_result=True)

        send()
        deadline = time.monotonic() + 60
        while completed(url) < 1:
            if time.monotonic() > deadline or not at_work.is_running():
                print((folder / "worker.log").read_text()[-3000:])
                return 1
            time.sleep(0.2)
        before = completed(url)
        used = measure(exporter, url, given, send)
        print(f"{given.rate:g} tasks/s, scraped every {given.every:g} s:", used)
        print(f"{used.completed - before:.0f} completed by then")
    return 0


if __name__ == "__main__":
    sys.exit(main())
