"""Rows that a thread writes together: in order, once, within a bound, and again where they were not taken."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from runtime.environment.batches import MOST, Batches, logger
from tests.waiting import until


class Table:
    """What was written, in batches; `fails` so many times first."""

    def __init__(self, fails: int = 0) -> None:
        self.batches: list[list[Any]] = []
        self.fails = fails

    def write(self, rows: Sequence[Any]) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("away")
        self.batches.append(list(rows))


def quiet(table: Table) -> Batches[Any]:
    """Batches whose thread writes nothing by itself."""
    return Batches("rows", table.write, every_seconds=3600.0)


def test_rows_are_written_together_in_order_and_once() -> None:
    table = Table()
    batches = quiet(table)
    batches.add([1, 2])
    batches.add([3])
    assert table.batches == []
    batches.flush()
    batches.flush()
    assert table.batches == [[1, 2, 3]]


def test_a_thread_writes_them_by_itself() -> None:
    table = Table()
    batches: Batches[Any] = Batches("rows", table.write, every_seconds=0.01)
    batches.add([1])
    until(lambda: table.batches == [[1]], 60, "the thread writes")
    batches.add([2])
    until(lambda: table.batches == [[1], [2]], 60, "the thread writes again")


def test_what_was_not_taken_is_tried_again_before_what_is_newer() -> None:
    table = Table(fails=1)
    batches = quiet(table)
    batches.add([1])
    batches.flush()
    batches.add([2])
    batches.flush()
    assert table.batches == [[1, 2]]


def test_beyond_the_bound_the_oldest_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever an earlier test has made of logging.
    monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.WARNING, logger.name)
    table = Table(fails=2)
    batches = quiet(table)
    for number in range(MOST):
        batches.add([number])
    batches.flush()
    batches.add([MOST, MOST + 1])
    batches.flush()
    batches.flush()
    assert table.batches == [list(range(2, MOST + 2))]
    assert "2 rows were dropped" in caplog.text
