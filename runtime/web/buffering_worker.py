"""gunicorn's threaded worker, with the kernel as the buffer of requests that have not arrived yet.

As shipped (gunicorn 23.0) a connection has a thread as soon as one byte of it came, for as long as its client likes: as many
half-sent requests as there are threads stop a process, and `/health` with it. A connection that says nothing is kept for ever,
and a process that has no file descriptor left for the next one ends.

Here a thread gets a request once it is whole (`received.BUFFERED_BYTES`): until then its bytes stay in the kernel (`MSG_PEEK`),
which wakes this process when as many more are there as are missing (`SO_RCVLOWAT`). `/health` is answered by the loop that takes
connections: it says that this process takes and ends requests, however many threads are at work.

Overrides `accept`, `on_client_socket_readable`, `murder_keepalived`, `handle` and `handle_request` of gunicorn's `ThreadWorker`.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any, cast

from gunicorn.workers import gthread

from runtime.environment import versions
from runtime.web import received
from runtime.web.paced_socket import PacedSocket

#: Seconds in which a request arrives whole, or to BUFFERED_BYTES, from its first byte on.
ARRIVAL_SECONDS = 20.0
#: Seconds before the next try to accept a connection where there is room for none.
PAUSE_SECONDS = 0.05

# pyright's types of gunicorn are of another version.
_gthread: Any = gthread
#: gunicorn's `TConn`.
Connection = Any

versions.require(__name__, "gunicorn")


class BufferingWorker(_gthread.ThreadWorker):
    """A threaded worker whose threads wait for no client's request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Connections without a whole request, and when each is closed: the oldest first, since all of a kind have as long.
        self._silent: dict[Connection, float] = {}
        self._arriving: dict[Connection, float] = {}
        # When a thread last began or ended a request.
        self._moved = time.monotonic()

    def accept(self, server: Any, listener: socket.socket) -> None:
        """Take one connection; where there are too many, the oldest without a whole request makes room."""
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
                return
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                return
            raise
        conn = _gthread.TConn(self.cfg, PacedSocket.of(accepted), client, server)
        self.nr_conns += 1
        with self._lock:
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))
        if self.nr_conns >= self.worker_connections:
            self._make_room()
        self._silent[conn] = time.monotonic() + self.cfg.keepalive

    def on_client_socket_readable(self, conn: Connection, client: Any) -> None:
        """Give the request to a thread where it is whole, else wait for what it misses."""
        closes_at = self._taken(conn)
        if closes_at is None:
            # Closed in this round, to make room.
            return
        held = _held(conn)
        try:
            arrived = client.peek(received.BUFFERED_BYTES)
        except OSError:
            self._end(conn)
            return
        more = received.missing(held + arrived) if arrived else 0
        # The kernel wakes this process again when so many are there.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(arrived) + more if more else 1)
        if more:
            self._arriving[conn] = closes_at
            return
        with self._lock:
            self.poller.unregister(client)
        if not held and received.asks_health(arrived):
            self._end(conn, self._health())
        else:
            self.enqueue_req(conn)

    def murder_keepalived(self) -> None:
        """Close the connections whose time is over: those that are kept, that say nothing, or whose request does not come."""
        super().murder_keepalived()
        now = time.monotonic()
        for waiting, last_word in ((self._silent, b""), (self._arriving, TOO_SLOW)):
            for conn, closes_at in list(waiting.items()):
                if closes_at > now:
                    break
                del waiting[conn]
                self._end(conn, last_word)

    def handle(self, conn: Connection) -> tuple[bool, Connection]:
        """Answer one request, in a thread, and those that were read with it: nothing more may come to wake the loop."""
        while True:
            self._moved = time.monotonic()
            try:
                conn.sock.begin()
                answered = cast(tuple[bool, Connection], super().handle(conn))
            finally:
                self._moved = time.monotonic()
            held = _held(conn)
            if not answered[0] or not held or received.missing(held):
                return answered

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Answer it, and read what the application left of its body: the next request begins after it."""
        keepalive = cast(bool, super().handle_request(req, conn))
        while keepalive and req.body.read(8192):
            pass
        return keepalive

    def _taken(self, conn: Connection) -> float | None:
        """Count `conn` to none of those that wait any more: by when its request must have arrived; None where it is closed."""
        arrives_by = self._arriving.pop(conn, None)
        if arrives_by is not None:
            return arrives_by
        if self._silent.pop(conn, None) is None:
            with self._lock:
                if conn not in self._keep:
                    return None
                self._keep.remove(conn)
        return time.monotonic() + ARRIVAL_SECONDS

    def _make_room(self) -> None:
        """Close the connection that has sent no whole request for longest, of the kind of which there are most."""
        waiting = max(self._silent, self._arriving, key=len)
        conn = next(iter(waiting), None)
        if conn is not None:
            del waiting[conn]
        else:
            with self._lock:
                conn = self._keep.popleft() if self._keep else None
        if conn is not None:
            self._end(conn)
        else:
            # Each has a request at work: the next may be accepted when one ends.
            time.sleep(PAUSE_SECONDS)

    def _end(self, conn: Connection, last_word: bytes = b"") -> None:
        self.nr_conns -= 1
        conn.sock.send_now(last_word)
        with suppress(KeyError, ValueError, OSError), self._lock:
            self.poller.unregister(conn.sock)
        conn.close()

    def _health(self) -> bytes:
        at_work = sum(not each.done() for each in self.futures)
        still = time.monotonic() - self._moved
        if at_work >= self.cfg.threads and still > self.cfg.timeout:
            said = f"all {at_work} threads are at work, and none began or ended a request for {still:.0f} s\n"
            return _answer("503 Service Unavailable", said)
        return _answer("200 OK", "OK")


def _held(conn: Connection) -> bytes:
    """What the parser has read already of the next request, of a client that sent it with the last."""
    return bytes(conn.parser.unreader.buf.getvalue()) if conn.parser else b""


def _answer(status: str, text: str) -> bytes:
    fields = ("Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(text)}", "Connection: close")
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", text]).encode()


#: What a client reads whose request did not arrive in time.
TOO_SLOW = _answer("408 Request Timeout", f"the request did not arrive within {ARRIVAL_SECONDS:.0f} s\n")
