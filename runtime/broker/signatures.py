"""Messages are signed by who sends them, and read by nobody where they are not.

As shipped (Celery 5.6, kombu 5.6) whoever can write to the broker has a worker execute any task, with any arguments, as any
user. Here every message of a task carries a signature of its content and of all its headers (the task's id and name, its
limits, its tenant), made with a key that only the web processes, the workers, beat and the init job have; a worker looks at
nothing else of a message before it has checked that.

A key has a number. A process signs with the number of its topology, and accepts the one before and the one after as well: while
processes are replaced by such with the next key, either side takes what the other has signed.

What is not signed is the queue (messages of a retired queue move to another), and that a message was not sent before: whoever
can read and write the broker can send a message again. The fence (`runtime.queries.deliveries`) decides about that.

Replaces `_inplace_augment_message` of kombu's Redis channel, after which a message is as it goes to the broker (read and tested
with kombu 5.6.2; no upstream issue known. Celery's own serializer `auth` signs content only, with certificates, and not the
headers).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, cast

from kombu.transport import redis as transport
from kombu.utils import json

from runtime.environment import hooks, process_topology, secrets, versions
from topology.model import Topology

#: Header of a message with the number of the key and the signature.
HEADER = "superset_async_signature"
#: What kombu changes in a message's headers when it delivers it again.
_CHANGED_BY_KOMBU = frozenset({"redelivered"})


class SignatureError(ValueError):
    """What was not signed for what it is used as; the text says why, and nothing of what it holds."""


class Signatures:
    """Signs with the key of number `current`, and accepts those of all `keys`, by number.

    `accept_unsigned`: take what carries no signature at all, as the release before wrote it.
    """

    def __init__(self, current: int, keys: Mapping[int, bytes], *, accept_unsigned: bool = False) -> None:
        self._current = current
        self._keys = dict(keys)
        self._accept_unsigned = accept_unsigned

    def of_message(self, message: Mapping[str, Any]) -> str:
        """The signature of a message as kombu writes it to the broker."""
        return self._sign("message", _parts(json.loads(json.dumps(message))))

    def check_message(self, message: object) -> None:
        """SignatureError unless this message, as it was read from the broker's JSON, is as it was signed."""
        try:
            known = cast("Mapping[str, Any]", message)
            signature, parts = known["headers"].get(HEADER), _parts(known)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
            raise SignatureError(f"no message ({type(error).__name__})") from None
        self._check("message", signature, parts)

    def of_text(self, purpose: str, text: str) -> str:
        """The signature of a text that is kept for `purpose`."""
        return self._sign(purpose, (text.encode(),))

    def check_text(self, purpose: str, text: str, signature: str | None) -> None:
        """SignatureError unless `signature` is that of the text for `purpose`."""
        self._check(purpose, signature, (text.encode(),))

    def _sign(self, purpose: str, parts: tuple[bytes, ...]) -> str:
        return f"{self._current}:{_digest(self._keys[self._current], purpose, parts)}"

    def _check(self, purpose: str, signature: object, parts: tuple[bytes, ...]) -> None:
        if signature is None:
            if self._accept_unsigned:
                return
            raise SignatureError("not signed")
        number, _, digest = str(signature).partition(":")
        key = self._keys.get(int(number)) if number.isascii() and number.isdecimal() and len(number) < 10 else None
        if key is None:
            raise SignatureError("signed with a key that this process does not have")
        if not hmac.compare_digest(digest.encode(), _digest(key, purpose, parts).encode()):
            raise SignatureError("signed for something else, or changed")


def _parts(message: Mapping[str, Any]) -> tuple[bytes, ...]:
    headers = {name: value for name, value in message["headers"].items() if name not in _CHANGED_BY_KOMBU and name != HEADER}
    described = [message["content-type"], message["content-encoding"], message["properties"]["body_encoding"]]
    return json.dumps(headers, sort_keys=True).encode(), json.dumps(described).encode(), json.dumps(message["body"]).encode()


def _digest(key: bytes, purpose: str, parts: tuple[bytes, ...]) -> str:
    signed = hmac.new(key, digestmod="sha256")
    for part in (purpose.encode(), *parts):
        # The length goes first, so that no end of one part can pass for the beginning of the next.
        signed.update(len(part).to_bytes(8, "big") + part)
    return signed.hexdigest()


def of(topology: Topology, known: secrets.Secrets) -> Signatures:
    """The signatures of a process of `topology`."""
    return Signatures(
        topology.celery.message_key, known.message_keys, accept_unsigned=topology.celery.accept_unsigned_messages
    )


@lru_cache(maxsize=1)
def of_process() -> Signatures:
    """The signatures of this process; ConfigurationError where its environment lacks a key."""
    topology = process_topology.started()
    return of(topology, secrets.read(topology, os.environ))


def install(signatures: Callable[[], Signatures] = of_process) -> None:
    """Have this process sign the tasks that it sends; UntestedVersionError for a kombu of another version."""
    versions.require(__name__, "kombu")
    hooks.replace(transport.Channel, "_inplace_augment_message", __name__, partial(_signing, signatures))


def _signing(signatures: Callable[[], Signatures], shipped: Callable[..., None]) -> Callable[..., None]:
    def augment(self: Any, message: dict[str, Any], exchange: str, routing_key: str) -> None:
        shipped(self, message, exchange, routing_key)
        if "task" in message["headers"]:
            # Not into the caller's own: it may send them again.
            message["headers"] = {**message["headers"], HEADER: signatures().of_message(message)}

    return augment
