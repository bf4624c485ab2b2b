"""What is stored for a value: its bytes, compressed, with when it was computed, signed for the one key that it belongs to.

Values are pickles, and loading a pickle is executing it. So nothing in an envelope is used before its signature was checked:
whoever can write to Redis, or to the folder of spilled results, can delete a result but not make a process run code.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from topology.settings.caching import ResultCompression

MAGIC = b"SA1"
#: Magic, codec, kind; computed at, expires at (seconds since 1970), seconds that it took to compute.
_HEADER = struct.Struct(">3sBBddd")
_TAG_BYTES = hashlib.sha256().digest_size
#: What an envelope has beside its body.
OVERHEAD_BYTES: Final = _HEADER.size + _TAG_BYTES

CODECS: Final[tuple[ResultCompression, ...]] = ("none", "zlib", "zstd")
#: What a body is: bytes as they were given, a pickle, or the name of the file that has the envelope itself.
Kind = Literal["bytes", "pickle", "file"]
KINDS: Final[tuple[Kind, ...]] = ("bytes", "pickle", "file")
#: Levels by measurement: the next ones cost more time than they save in bytes.
ZLIB_LEVEL, ZSTD_LEVEL = 1, 1
#: What counting the size of a compressed value has in memory at most.
_INFLATED_AT_ONCE = 2**20


class RefusedError(ValueError):
    """Bytes that are no envelope of this key signed with this secret; the message says why."""


@dataclass(frozen=True)
class Envelope:
    """A value as it is stored. `computed` and `expires` are seconds since 1970, `seconds` is what computing it took."""

    kind: Kind
    codec: ResultCompression
    computed: float
    expires: float
    seconds: float
    body: bytes
    #: Bytes of the body before it was compressed, for who has just wrapped it: it is not stored.
    plain_bytes: int = 0

    @property
    def value(self) -> Any:
        """The value; KeyError for a file's name, which is no value."""
        if self.kind == "file":
            raise KeyError(self.kind)
        data = _decompress(self.body, self.codec)
        return data if self.kind == "bytes" else pickle.loads(data)  # noqa: S301

    def sealed(self, secret: bytes, key: str) -> bytes:
        """These bytes, signed with `secret` for `key`."""
        header = _HEADER.pack(
            MAGIC, CODECS.index(self.codec), KINDS.index(self.kind), self.computed, self.expires, self.seconds
        )
        return b"".join((header, _tag(secret, key, header, self.body), self.body))


def wrap(
    value: object, *, computed: float, expires: float, seconds: float, codec: ResultCompression, above: int
) -> Envelope:
    """An envelope of `value`, compressed with `codec` if it has more than `above` bytes and gets smaller by it."""
    kind: Kind = "bytes" if isinstance(value, bytes) else "pickle"
    data: bytes = value if isinstance(value, bytes) else pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    used: ResultCompression = "none"
    plain = len(data)
    # Bytes are SQL Lab's, which has compressed them.
    if kind == "pickle" and len(data) > above and codec != "none":
        compressed = _compress(data, codec)
        if len(compressed) < len(data):
            used, data = codec, compressed
    return Envelope(kind, used, computed, expires, seconds, data, plain)


def size_when_inflated(value: bytes, most: int) -> int:
    """How many bytes `value` becomes for who reads it; what is beyond `most` is not counted to its end.

    SQL Lab has compressed its rows with zlib: a small result may become a thousand times as large. Bytes that are not
    compressed are as many as they are.
    """
    inflate, size, rest, counted = zlib.decompressobj(), len(value), value, 0
    try:
        while rest and counted <= most:
            counted += len(inflate.decompress(rest, _INFLATED_AT_ONCE))
            rest = inflate.unconsumed_tail
    except zlib.error:
        return size
    return max(size, counted)


def opened(sealed: bytes, secret: bytes, key: str) -> Envelope:
    """The envelope in `sealed`; RefusedError unless it was signed with `secret` for `key` and nothing was changed since."""
    if len(sealed) < OVERHEAD_BYTES or not sealed.startswith(MAGIC):
        raise RefusedError("not signed")
    header, tag = sealed[: _HEADER.size], sealed[_HEADER.size : OVERHEAD_BYTES]
    body = sealed[OVERHEAD_BYTES:]
    if not hmac.compare_digest(tag, _tag(secret, key, header, body)):
        raise RefusedError("signed for another key or with another secret, or changed")
    _, codec, kind, computed, expires, seconds = cast("tuple[bytes, int, int, float, float, float]", _HEADER.unpack(header))
    return Envelope(KINDS[kind], CODECS[codec], computed, expires, seconds, body)


def signing_secret(secret_key: str, purpose: str) -> bytes:
    """The secret with which a purpose's values are signed, the same in every process that has `secret_key`."""
    return hmac.digest(secret_key.encode(), f"values of {purpose}".encode(), "sha256")


def _tag(secret: bytes, key: str, header: bytes, body: bytes) -> bytes:
    # The key's length goes first, so that no part of a key can pass for a part of the value.
    name = key.encode()
    signed = hmac.new(secret, len(name).to_bytes(4, "big") + name + header, hashlib.sha256)
    signed.update(body)
    return signed.digest()


def _compress(data: bytes, codec: ResultCompression) -> bytes:
    if codec == "zlib":
        return zlib.compress(data, ZLIB_LEVEL)
    import zstandard

    return zstandard.compress(data, ZSTD_LEVEL)


def _decompress(data: bytes, codec: ResultCompression) -> bytes:
    if codec == "none":
        return data
    if codec == "zlib":
        return zlib.decompress(data)
    import zstandard

    return zstandard.decompress(data)
