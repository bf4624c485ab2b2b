"""Servers of a stack listen to both families of addresses, as far as there are two."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.environment import listening
from tests.components.test_sentinel import PROJECT, isolated

__all__ = ["isolated"]


@pytest.mark.services
@pytest.mark.superset
@pytest.mark.parametrize(("host", "addresses"), [("both", ["127.0.0.1", "::1"]), ("ipv6", ["::1"]), ("ipv4", ["127.0.0.1"])])
def test_every_server_is_reached_at_every_address(
    isolated: list[str], host: str, addresses: list[str], tmp_path: Path
) -> None:
    """A kubelet on an IPv6-only node probes the pod's IPv6 address, and no other."""
    command = [*isolated, sys.executable, "-m", "tests.components.listening", str(tmp_path), host]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(
        ("redis", "sentinel", "web", "exporter", "postgres"), addresses
    )


def test_without_ipv6_in_the_kernel_it_is_every_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `ipv6.disable=1`, where no such socket can be made."""
    real = socket.socket

    def made(family: int = socket.AF_INET, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *more)

    monkeypatch.setattr(socket, "socket", made)
    assert listening.gunicorn_binds("::", 8088) == ["0.0.0.0:8088"]
    assert listening.family(listening.address("::")) == socket.AF_INET
    assert listening.gunicorn_binds("127.0.0.1", 8088) == ["127.0.0.1:8088"]


def test_where_ipv6_listeners_take_no_ipv4_gunicorn_gets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the system's `net.ipv6.bindv6only=1`."""

    class Alone(socket.socket):
        def getsockopt(self, level: int, option: int, *more: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
            assert (level, option) == (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            return 1

    monkeypatch.setattr(socket, "socket", Alone)
    assert listening.gunicorn_binds("::", 8088) == ["0.0.0.0:8088", "[::]:8088"]
