"""What holds for all tests."""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from local import binaries

#: Fixtures that start a server, or a program that the project's environment does not have.
SERVICES = frozenset({"services", "server", "start", "pod", "cli"})
#: Marks of tests that may start the programs of `local.binaries`.
MAY_START = frozenset({"superset", "services", "local", "cluster"})


def pytest_configure() -> None:
    """Have Ctrl-C work here and in what tests start: a shell that runs the tests in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a fixture that starts servers as `services`."""
    for item in items:
        if isinstance(item, pytest.Function) and not SERVICES.isdisjoint(item.fixturenames):
            item.add_marker("services")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Refuse Superset's environment, Valkey and PostgreSQL to a test whose marks do not name them: `make check` has none."""
    with pytest.MonkeyPatch.context() as patch:
        if MAY_START.isdisjoint(mark.name for mark in item.iter_markers()):
            for program in ("superset_python", "valkey_server", "postgres_program"):
                patch.setattr(binaries, program, _refused)
        return (yield)


def _refused(*_: object) -> Path:
    raise AssertionError("this test starts a server or Superset: mark it with pytest.mark.services or pytest.mark.superset")
