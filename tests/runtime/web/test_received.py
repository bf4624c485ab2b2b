"""What has arrived of a request: for every request, every way of cutting it, and what is no HTTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.web.received import BUFFERED_BYTES, asks_health, missing

NAMES = st.sampled_from(["Host", "Content-Type", "Cookie", "X-Content-Length", "Accept"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=300))
    named = draw(st.sampled_from(["Content-Length", "content-length", "CONTENT-LENGTH"]))
    fields = [(name, draw(st.text(alphabet="abc 0123=;", max_size=20))) for name in draw(st.lists(NAMES, max_size=4))]
    fields.insert(draw(st.integers(0, len(fields))), (named, str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return b"POST /x HTTP/1.1\r\n" + head.encode() + b"\r\n" + body


@given(requests(), st.data())
def test_a_request_is_whole_at_its_last_byte_and_not_before(request_: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(request_) - 1))
    assert missing(request_) == 0
    assert 0 < missing(request_[:cut]) <= len(request_) - cut
    assert missing(request_ + b"GET / HTTP/1.1\r\n") == 0


@given(requests())
def test_asking_for_what_is_missing_ends_with_the_whole_request(request_: bytes) -> None:
    had = 0
    while more := missing(request_[:had]):
        had += more
    assert had == len(request_)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 1),
        (b"GET / HTTP/1.1\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r", 1),
        (b"no http at all" + bytes(BUFFERED_BYTES), 0),
        # A thread reads an upload, as it comes, and what has no length.
        (b"POST / HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n" + bytes(BUFFERED_BYTES), 0),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: 5x\r\n\r\n", 0),
    ],
)
def test_what_is_missing(data: bytes, expected: int) -> None:
    assert missing(data) == expected


def test_a_large_request_is_waited_for_up_to_the_bound() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n"
    assert missing(head) == BUFFERED_BYTES - len(head)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"HEAD /health?x=1 HTTP/1.0\r\n\r\n", True),
        (b"GET /healthy HTTP/1.1\r\n\r\n", False),
        (b"GET /x/health HTTP/1.1\r\n\r\n", False),
        (b"POST /health HTTP/1.1\r\n\r\n", False),
        (b"GET /health HTTP/1.1\r\n\r\nGET /", False),
    ],
)
def test_health_is_asked_by_its_path_alone(data: bytes, expected: bool) -> None:
    assert asks_health(data) is expected
