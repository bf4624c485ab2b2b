"""Waiting in tests: for a state, never for a time."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed


def until(true: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
    """Return as soon as `true` holds; AssertionError, naming `what`, where it does not within `seconds`."""
    waiting = Retrying(retry=retry_if_result(_false), stop=stop_after_delay(seconds), wait=wait_fixed(pause))
    try:
        waiting(true)
    except RetryError:
        raise AssertionError(f"{what}: not within {seconds} s") from None


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _false(value: bool) -> bool:
    return not value
