"""`python -m bench.load.delay_proxy MS LISTEN:TARGET [LISTEN:TARGET …]`: TCP on loopback with a one-way delay.

Stands between Superset's processes and their data stores where the kernel has no netem. Each packet goes on MS milliseconds
after it came, and packets do not wait for each other: a delay, not a bandwidth. Prints `ready`, and serves until it is
ended. Its own cost is measured: it is a tier of the side, and with 0 ms its latency is what it adds by itself.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from typing import cast


class Forward(asyncio.Protocol):
    """One end of a connection: what it receives is written to `peer`, `delay` seconds later and in order."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.transport: asyncio.Transport | None = None
        self.peer: Forward | None = None
        self._ended = False
        self._early: list[bytes] = []
        self._under_way: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send small packets at once, as clients of data stores do."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Pass it on after the delay; what comes before the other end is there waits for it."""
        if self.peer is None:
            self._early.append(data)
        elif self.delay:
            # The oldest goes when a time is up: two timers of one moment may come in either order.
            self._under_way.append(data)
            asyncio.get_running_loop().call_later(self.delay, self._pass_on)
        else:
            self.peer.write(data)

    def _pass_on(self) -> None:
        if self.peer is not None:
            self.peer.write(self._under_way.popleft())

    def connect(self, peer: Forward) -> None:
        """Join with the other end."""
        self.peer, peer.peer = peer, self
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def write(self, data: bytes) -> None:
        """Write to this end, unless it is gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def eof_received(self) -> bool:
        """This end sends no more, and may still receive: pass that on, after what is under way; the last one closes both."""
        self._ended = True
        asyncio.get_running_loop().call_later(self.delay, self._pass_end_on)
        return True

    def _pass_end_on(self) -> None:
        if self.peer is None or self.peer.transport is None or self.transport is None:
            return
        if self.peer._ended:
            self.peer.transport.close()
            self.transport.close()
        elif not self.peer.transport.is_closing():
            self.peer.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio names it
        """End the other end too, after what is on its way."""
        if self.peer is not None and self.peer.transport is not None:
            asyncio.get_running_loop().call_later(self.delay, self.peer.transport.close)


async def serve(milliseconds: float, routes: list[tuple[int, int]]) -> None:
    """Listen on the first port of each route, and forward to the second one, for ever."""
    loop = asyncio.get_running_loop()
    delay = milliseconds / 1000
    connecting: set[asyncio.Task[None]] = set()

    def accepted(target: int) -> Forward:
        client = Forward(delay)

        async def connect() -> None:
            try:
                _, server = await loop.create_connection(lambda: Forward(delay), "127.0.0.1", target)
            except OSError:
                if client.transport is not None:
                    client.transport.abort()
                return
            client.connect(server)

        task = loop.create_task(connect())
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return client

    for listen, target in routes:
        await loop.create_server(lambda to=target: accepted(to), "127.0.0.1", listen, backlog=1024)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """Serve what the command line says."""
    routes: list[tuple[int, int]] = []
    for route in arguments[1:]:
        listen, _, target = route.partition(":")
        routes.append((int(listen), int(target)))
    asyncio.run(serve(float(arguments[0]), routes))


if __name__ == "__main__":
    main(sys.argv[1:])
