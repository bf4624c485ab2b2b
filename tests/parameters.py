"""Names of parameters of tests."""

from __future__ import annotations

from collections.abc import Set


def name_of(value: object) -> str:
    """The text of `value`, the same in every process: the order of a set's text is another in each."""
    if isinstance(value, Set):
        return ",".join(sorted(map(str, value)))
    return str(value)
