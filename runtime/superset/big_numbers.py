"""Decimals beyond 2^53 are text in the rows of SQL Lab, as integers are.

As shipped (Superset 6.1) an integer beyond 2^53 is text in these rows, since most readers of JSON round it, browsers among them;
a `numeric` of 20 digits is a bare number, and the page shows another one. What is smaller stays a number: a reader that rounds
it at its 17th digit, as of the average of a column, is as near as it can be.

Replaces `_convert_big_integers` in `superset.dataframe` (read and tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from runtime.environment import hooks, versions

#: The largest integer up to which a double has every one (RFC 8259, section 6).
EXACT = 2**53 - 1


def install() -> None:
    """Have this process convert decimals too; UntestedVersionError for a Superset of another version."""
    from superset import dataframe

    versions.require(__name__)
    hooks.replace(dataframe, "_convert_big_integers", __name__, _with_decimals)


def _with_decimals(shipped: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def convert_big_integers(value: Any) -> Any:
        return in_full(value) if isinstance(value, Decimal) else shipped(value)

    return convert_big_integers


def in_full(value: Decimal) -> Decimal | str:
    """The number, as text with all its digits where it is beyond ±2^53."""
    return f"{value:f}" if value.is_finite() and abs(value) > EXACT else value
