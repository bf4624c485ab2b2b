"""What must be so before anything starts: free ports, room on the disk, one `make up` at a time."""

from __future__ import annotations

import fcntl
import shutil
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager

import psutil

from local.state import StateFolder
from topology.model import Topology
from topology.problems import MendableError

#: The sample, the metadata, the append-only file and its rewrite took 0.5 GB after a day of tests.
FREE_BYTES_NEEDED = 2 * 2**30


class PreflightError(MendableError):
    """Why the platform cannot start here, all reasons at once; nothing was started."""


@contextmanager
def only_one(folder: StateFolder) -> Generator[None]:
    """Hold the state folder for this command; PreflightError when another command holds it."""
    folder.make()
    with (folder.root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PreflightError(f"another command works on {folder.root}; wait for it, or stop it") from None
        yield


def check(wanted: Mapping[str, tuple[str, int]], folder: StateFolder) -> None:
    """PreflightError with every reason why processes on the ports of `wanted` (as `ports` returns them) cannot start now."""
    reasons = [*_busy_ports(wanted), *_full_disk(folder)]
    if reasons:
        raise PreflightError("cannot start, and nothing was started:\n" + "\n".join(f"  - {reason}" for reason in reasons))


def ports(topology: Topology) -> dict[str, tuple[str, int]]:
    """Each listening port by process: the key of the stack file that sets it, and its number."""
    return {
        "web": ("local.web_port", topology.web.port),
        "postgres": ("local.postgres_port", topology.postgres.port),
        "exporter": ("local.exporter_port", topology.exporter.port),
        **{instance.name: ("local.redis_port", instance.port) for instance in topology.redis},
    }


def _busy_ports(wanted: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    for name, (key, port) in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                yield (
                    f"port {port} of {name} is in use{_holder(port)}: "
                    f"end that program, or set superset-async:{key} in the stack file"
                )


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})" if connection.pid else ""
    except psutil.Error:
        pass
    return ""


def _full_disk(folder: StateFolder) -> Iterator[str]:
    free = shutil.disk_usage(folder.root).free
    if free < FREE_BYTES_NEEDED:
        yield (
            f"{folder.root} has {free / 2**30:.1f} GiB free, {FREE_BYTES_NEEDED / 2**30:.0f} GiB are needed: "
            "free some, or set SUPERSET_ASYNC_STATE to a folder on another disk"
        )
