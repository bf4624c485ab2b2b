"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Have Ctrl-C work here and in what tests start: a shell that runs the tests in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
