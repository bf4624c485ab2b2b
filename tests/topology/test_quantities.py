"""Sizes and CPU shares survive the way there and back, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.quantities import format_cpu, format_memory, parse_cpu, parse_memory


@given(st.integers(min_value=0, max_value=2**60))
def test_memory_round_trips(size: int) -> None:
    assert parse_memory(format_memory(size)) == size


@given(st.integers(min_value=0, max_value=10**6))
def test_cpu_round_trips(millis: int) -> None:
    assert parse_cpu(format_cpu(millis)) == millis


@pytest.mark.parametrize(
    ("text", "size"), [("512Mi", 512 * 2**20), ("2Gi", 2**31), ("433M", 433_000_000), ("1k", 1000), (4096, 4096)]
)
def test_memory_units(text: object, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(("text", "millis"), [("500m", 500), ("2", 2000), ("1.5", 1500), (3, 3000), (0.25, 250)])
def test_cpu_units(text: object, millis: int) -> None:
    assert parse_cpu(text) == millis


@pytest.mark.parametrize("text", ["", "Gi", "5 GB", "-1Gi", "1.5Gi", "5g", True, None, [1]])
def test_nonsense_is_no_memory(text: object) -> None:
    with pytest.raises(ValueError, match="size such as"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["", "m", "1 core", "-1", "1.2345", True, None])
def test_nonsense_is_no_cpu(text: object) -> None:
    with pytest.raises(ValueError, match="CPU share"):
        parse_cpu(text)
