"""AWS's services in this process, by moto: an address that boto3's clients speak to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import httpx
from moto.server import ThreadedMotoServer


@contextmanager
def aws_services() -> Generator[str]:
    """The URL of a server on a port of its own, with nothing in it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # moto keeps one state for a process: what another server of it was given would be here too.
        httpx.post(f"{url}/moto-api/reset", timeout=60).raise_for_status()
        yield url
    finally:
        server.stop()
