"""The page of resources is what the program registers; and its picture leaves out nothing but what another way says."""

from __future__ import annotations

import pytest

from tests.components.aws import document

pytestmark = pytest.mark.thorough


def test_the_page_is_up_to_date() -> None:
    """docs/aws-resources.md is what the stacks on AWS are made of (`make docs`)."""
    assert document.TARGET.read_text(encoding="utf-8") == document.document()


def test_of_two_ways_the_longer_one_stays() -> None:
    waits = {"cluster": {"network", "key"}, "network": {"key"}, "key": set[str](), "pods": {"cluster", "bucket"}}
    assert document.reduced(waits) == {
        "cluster": {"network"},
        "network": {"key"},
        "key": set(),
        "pods": {"cluster", "bucket"},
    }
