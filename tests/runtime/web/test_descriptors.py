"""How many connections a process may hold."""

from __future__ import annotations

import pytest

from runtime.web.descriptors import TooFewDescriptors, connections


def test_a_process_holds_as_many_as_its_descriptors_leave() -> None:
    assert connections(65536, 20) == 1000
    assert connections(300, 20) == 156


def test_too_few_are_refused_with_the_way_out() -> None:
    with pytest.raises(
        TooFewDescriptors, match=r"may open 160 files and needs more than 164 for its 20 threads: raise .* web\.threads"
    ):
        connections(160, 20)
