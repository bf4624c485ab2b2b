"""A client's connection on which a thread waits only for a client that keeps up."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import suppress
from typing import Any

#: Seconds that a thread waits for a client at most, when none of its bytes move; those that move earn time again.
GRACE_SECONDS = 20.0
#: Bytes a second that a client sends or takes at least: a tenth of what a poor mobile connection has.
SLOWEST = 8 * 1024
#: Bytes that are sent at once, so that a client who takes them is seen to.
_PIECE = 64 * 1024


class PacedSocket(socket.socket):
    """A socket whose `recv` and `sendall` end with ConnectionResetError where the client is slower than SLOWEST.

    Only the time that is spent in waiting for the client counts, from `begin` on, so that a slow query takes none of it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = GRACE_SECONDS

    @classmethod
    def of(cls, accepted: socket.socket) -> PacedSocket:
        """The connection of `accepted`, which is not to be used after it."""
        return cls(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())

    def begin(self) -> None:
        """A request begins: what was waited for the last one is forgotten."""
        self._left = GRACE_SECONDS

    def recv(self, *args: Any) -> bytes:
        """As of a socket. Raises ConnectionResetError for a client that has fallen behind."""
        began = self._wait_at_most()
        try:
            data = super().recv(*args)
        except TimeoutError:
            raise _behind() from None
        self._count(began, len(data))
        return data

    def sendall(self, data: Any, *args: Any) -> None:
        """As of a socket. Raises ConnectionResetError for a client that has fallen behind."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            began = self._wait_at_most()
            try:
                super().sendall(piece, *args)
            except TimeoutError:
                raise _behind() from None
            self._count(began, len(piece))

    def peek(self, size: int) -> bytes:
        """What is there already of what the client sent, at most `size` bytes, and stays there; OSError where nothing is."""
        return super().recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)

    def send_now(self, data: bytes) -> None:
        """Send `data` as a last word, without waiting, and take what the client sent, so that its end does not reset it."""
        with suppress(OSError):
            super().send(data, socket.MSG_DONTWAIT)
            self.shutdown(socket.SHUT_WR)
            while super().recv(_PIECE, socket.MSG_DONTWAIT):
                pass

    def _wait_at_most(self) -> float:
        if self._left <= 0:
            raise _behind()
        self.settimeout(self._left)
        return time.monotonic()

    def _count(self, began: float, moved: int) -> None:
        # What goes into the kernel's buffer at once earns no more than the grace.
        self._left = min(GRACE_SECONDS, self._left + moved / SLOWEST - (time.monotonic() - began))


def _behind() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "the client was too slow")
