"""Records of the audit trail as lines: what a pipe takes whole, and what is read back."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.environment import audit_records
from runtime.environment.audit_records import LINE_BYTES, TEXT, lines, read

HEAD: dict[str, Any] = {"audit": 1, "id": "a1", "time": "2026-11-28T01:02:03.004+00:00"}
SHORT = st.text(max_size=12)
TEXTS = st.builds(lambda text, times: text * times, SHORT, st.integers(0, 100))
ITEMS = st.builds(lambda text, times: (text * times)[:TEXT], SHORT, st.integers(0, 30))
LISTS = st.builds(lambda items, times: items * times, st.lists(ITEMS, max_size=4), st.integers(1, 60))
NAMES = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=5, max_size=12).filter(
    lambda name: name not in HEAD
)
VALUES = st.one_of(TEXTS, st.integers(-(10**12), 10**12), st.booleans(), LISTS)


@given(st.dictionaries(NAMES, VALUES, max_size=12))
def test_every_line_fits_into_a_pipe_and_the_whole_is_read_back(about: dict[str, Any]) -> None:
    written = list(lines({**HEAD, **about}))
    assert all(len(line) <= LINE_BYTES for line in written)
    assert read([line.decode() for line in reversed(written)]) == [{**HEAD, **about}]


def test_other_lines_and_repeated_ones_are_left_out() -> None:
    first, second = (next(lines({**HEAD, "id": id, "time": f"2026-11-28T01:00:0{id}+00:00"})).decode() for id in "21")
    noise = ["", "{", "Loaded your configuration", '{"level": "INFO"}', '{"audit": 2, "id": "x", "time": "x"}', '["audit"]']
    collected = f"2026-11-28T01:00:02Z stdout F {first}"
    assert [record["id"] for record in read([first, *noise, second, collected])] == ["1", "2"]


def test_a_pipe_takes_a_line_whole() -> None:
    reading, writing = os.pipe()
    try:
        assert os.fpathconf(writing, "PC_PIPE_BUF") >= LINE_BYTES
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(("text", "is_one"), [('{"audit": 1, "id": "a", "time": "t"}', True), ('{"time": "t"}', False)])
def test_a_record_is_known_by_its_version(text: str, is_one: bool) -> None:
    assert audit_records.is_record(text) is is_one
