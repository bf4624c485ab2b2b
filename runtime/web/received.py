"""What has arrived of a request, looked at before a thread has it: pure."""

from __future__ import annotations

import re

#: Bytes of a request, head and body, that are waited for before a thread has it: as many as a query or a filter needs. What is
#: over them a thread reads, as it comes.
BUFFERED_BYTES = 64 * 1024

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*$", flags=re.IGNORECASE | re.MULTILINE)
_HEALTH = re.compile(rb"(?:GET|HEAD) /health(?:\?\S*)? HTTP/1\.[01]\r\n")


def missing(data: bytes) -> int:
    """How many bytes, at least, must follow the request's first bytes `data` before a thread needs wait for none: 0 for a request
    that is whole, or larger than BUFFERED_BYTES.

    One whose head is not whole misses 1 (nobody knows more). What is no HTTP at all is whole: the server's parser refuses it.
    """
    head, end, _ = data.partition(_END)
    if not end:
        return int(len(data) < BUFFERED_BYTES)
    length = _LENGTH.search(head.replace(b"\r\n", b"\n"))
    whole = len(head) + len(end) + (int(length[1]) if length else 0)
    return max(0, min(whole, BUFFERED_BYTES) - len(data))


def asks_health(data: bytes) -> bool:
    """Whether the whole request `data` asks for the health of the process."""
    return _HEALTH.match(data) is not None and data.endswith(_END)
