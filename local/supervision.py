"""The supervisor of one stack (supervisord): start it, ask it, stop it, and find what an earlier one left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport
from tenacity import Retrying, retry_if_not_result, stop_after_delay, wait_fixed

from local.processes import MARK
from local.state import StateFolder
from topology.problems import MendableError

#: supervisord's XML-RPC faults for a process that is already in the state asked for.
_ALREADY_STARTED, _NOT_RUNNING = 60, 70
#: Programs of the data stores.
_SERVERS = frozenset({"valkey-server", "postgres"})


class SupervisorError(MendableError):
    """A supervisor that does not start, end or obey; says where its log is."""


@dataclass(frozen=True)
class ProcessState:
    """What the supervisor says of a process: `pid` is 0 where none runs, `description` has its uptime or its end.

    `started` is when it was started last, in seconds since the epoch (0: never).
    """

    name: str
    state: str
    pid: int
    description: str
    started: int

    @property
    def running(self) -> bool:
        """Up for longer than the start-up second."""
        return self.state == "RUNNING"


class Supervisor:
    """The supervisord of a state folder, whether or not one runs."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder

    def alive(self) -> bool:
        """Whether it answers on its socket."""
        try:
            return bool(self._call("getState"))
        except OSError:
            return False

    def start(self) -> None:
        """Start it in the background; SupervisorError when it does not answer."""
        folder = self._folder
        folder.supervisor_socket.unlink(missing_ok=True)
        command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(folder.supervisor_config)]
        subprocess.run(command, check=True, env=os.environ | {MARK: str(folder.root)}, stdout=subprocess.DEVNULL)
        if not wait_until(self.alive, 15):
            raise SupervisorError(f"the supervisor did not start; see {folder.logs / 'supervisord.log'}")

    def states(self) -> list[ProcessState]:
        """Every process that it knows."""
        return [
            ProcessState(
                info["name"], info["statename"], info["pid"], info["description"] or info["spawnerr"], info["start"]
            )
            for info in self._call("getAllProcessInfo")
        ]

    def start_process(self, name: str) -> None:
        """Start a process without waiting for it."""
        self._call_unless(_ALREADY_STARTED, "startProcess", name, False)

    def stop_process(self, name: str) -> None:
        """Ask a process to stop, without waiting for it."""
        self._call_unless(_NOT_RUNNING, "stopProcess", name, False)

    def signal_process(self, name: str, signal: str) -> None:
        """Send `signal` to a process."""
        self._call_unless(_NOT_RUNNING, "signalProcess", name, signal)

    def shutdown(self) -> None:
        """End the supervisor itself; what still runs is stopped with it."""
        pid = int(self._call("getPID"))
        self._call("shutdown")
        if not wait_until(lambda: not psutil.pid_exists(pid), 30):
            raise SupervisorError(f"the supervisor does not end; see {self._folder.logs / 'supervisord.log'}")

    def _call_unless(self, tolerated: int, method: str, *args: object) -> None:
        try:
            self._call(method, *args)
        except Fault as fault:
            if fault.faultCode != tolerated:
                raise SupervisorError(f"the supervisor refused {method}{args}: {fault.faultString}") from None

    def _call(self, method: str, *args: object) -> Any:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._folder.supervisor_socket}")
        proxy = ServerProxy("http://127.0.0.1", transport=cast(Any, transport))
        return getattr(cast(Any, proxy).supervisor, method)(*args)


def leftovers(folder: StateFolder) -> list[psutil.Process]:
    """Processes of this state folder that are alive, parents first, each known by its id and its start time.

    Found by the mark in their environment; Valkey and PostgreSQL, which write their titles over it, by their program and by
    working below the folder. A shell of a person's that stands there is none of them.
    """
    return sorted(_marked(str(folder.root)), key=lambda process: process.create_time())


def end_leftovers(folder: StateFolder) -> int:
    """End, gently and then not, whatever an earlier run left; returns how many processes those were."""
    found = leftovers(folder)
    for process in found:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(found, timeout=20)
    for process in alive:
        _quietly(process.kill)
    psutil.wait_procs(alive, timeout=10)
    return len(found)


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Whether `condition` became true within `seconds`."""
    waiting = Retrying(
        retry=retry_if_not_result(bool),
        wait=wait_fixed(pause),
        stop=stop_after_delay(seconds),
        retry_error_callback=lambda _: False,
    )
    return waiting(condition)


def _marked(root: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and (process.environ().get(MARK) == root or _server_below(process, root)):
                yield process
        except psutil.Error:
            continue


def _server_below(process: psutil.Process, root: str) -> bool:
    # Of a program that was replaced meanwhile the system says so after its name.
    program = Path(process.exe().removesuffix(" (deleted)")).name
    return program in _SERVERS and Path(process.cwd()).is_relative_to(root)


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except psutil.Error:
        return
