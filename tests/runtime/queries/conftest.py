"""A web process that takes orders, and workers of Bob's tenant to kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from local import binaries
from runtime.environment import coordination as module
from tests.runtime.conftest import PROJECT, Prepared, free_ports, renewed, until
from topology import commands

FINAL = ("success", "failed", "stopped", "timed_out")


class Web:
    """`console_process.py`, one order at a time."""

    def __init__(self, prepared: Prepared) -> None:
        self.harbour_port = free_ports(1)
        self._log = (prepared.services.folder / "console.log").open("w")
        self.process = subprocess.Popen(
            [str(binaries.superset_python()), "-m", "tests.runtime.queries.console_process", str(self.harbour_port)],
            env=prepared.environment("web"),
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._turn = threading.Lock()
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, Path(self._log.name).read_text()[-4000:]
        return json.loads(line)

    def __call__(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        with self._turn:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            return self._answer()

    def submit(self, sql: str, database: str, **options: Any) -> int:
        """A query's row and its message; the query's id."""
        query_id = self("row", sql=sql, database=database)
        self("send", query_id=query_id, sql=sql, **options)
        return query_id

    def ended(self, query_id: int, seconds: float = 60) -> dict[str, Any]:
        """The query, once it is final."""
        until(lambda: self("query", query_id=query_id)["status"] in FINAL, seconds, f"query {query_id} ends")
        return self("query", query_id=query_id)

    def events(self, job: dict[str, Any], seconds: float = 60) -> list[dict[str, Any]]:
        """The events of a chart's job, once there is one."""
        until(lambda: bool(self("events", channel=job["channel_id"])), seconds, f"job {job['job_id']} ends")
        return self("events", channel=job["channel_id"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self._log.close()


@dataclass
class Worker:
    """A worker of Bob's tenant, by the very command that the platform starts, with `size` children."""

    prepared: Prepared
    name: str
    size: int = 2
    extra: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> Worker:
        self.log = self.prepared.services.folder / f"{self.name}.log"
        before = self.log.read_text().count(" ready.") if self.log.exists() else 0
        command = commands.worker(self.prepared.topology.pool("tenant-b"))
        command = [f"--concurrency={self.size}" if part.startswith("--autoscale") else part for part in command]
        command = [f"--hostname={self.name}@%h" if part.startswith("--hostname") else part for part in command]
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                [*command, *self.extra],
                env=self.prepared.environment("worker") | self.environment,
                cwd=PROJECT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until(
            lambda: self.log.read_text().count(" ready.") > before or self.process.poll() is not None,
            120,
            "the worker is ready",
        )
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        return self

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def finds(self, marker: str) -> bool:
        """Whether one of its children executes a statement with `marker`."""
        try:
            return bool(self.busy_child(marker))
        except (AssertionError, ValueError, psutil.NoSuchProcess):
            return False

    def said(self, text: str) -> int:
        """How often its log has `text`."""
        return self.log.read_text().count(text)

    def busy_child(self, marker: str) -> int:
        """The child whose connection executes a statement with `marker`, by the ports of both."""
        port = self.prepared.services.sql(
            f"SELECT client_port FROM pg_stat_activity WHERE query LIKE '%{marker}%' AND state = 'active' "
            "AND pid <> pg_backend_pid() ORDER BY query_start DESC LIMIT 1",
            database="postgres",
        )
        children = {child.pid for child in self.children()}
        for connection in psutil.net_connections("inet"):
            if connection.pid in children and connection.laddr and connection.laddr.port == int(port):
                return connection.pid
        raise AssertionError(f"no child executes {marker}")

    def kill(self) -> None:
        """SIGKILL, with all children, as a node's end."""
        children = self.children()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # While one of them is there, the broker hands messages to their connection.
        psutil.wait_procs(children, timeout=30)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture(scope="package")
def prepared(initialized: Prepared) -> Prepared:
    """A stack of this folder's own, which its web process and its workers keep: it keeps small results only."""
    plan = initialized.topology
    caching = plan.caching.model_copy(update={"max_result_bytes": 2**20})
    return replace(renewed(initialized), topology=plan.model_copy(update={"caching": caching}))


@pytest.fixture
def coordination(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`runtime.environment.coordination` in this process, as in a worker of the stack."""
    for name, value in prepared.environment("worker").items():
        if name not in ("PATH", "HOME", "PYTHONPATH", "LANG"):
            monkeypatch.setenv(name, value)
    module.reset()
    yield module
    module.reset()


@pytest.fixture(scope="package")
def web(prepared: Prepared) -> Iterator[Web]:
    prepared.services.sql("CREATE TABLE IF NOT EXISTS runs (marker text); ALTER TABLE runs OWNER TO analyst", "analytics")
    console = Web(prepared)
    try:
        yield console
    finally:
        console.close()


@pytest.fixture(scope="package")
def worker(prepared: Prepared, web: Web) -> Iterator[Worker]:
    running = Worker(prepared, "faulty").start()
    try:
        yield running
    finally:
        running.stop()
