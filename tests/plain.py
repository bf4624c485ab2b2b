"""Stacks whose servers speak no TLS: those of this machine's wheels cannot, and simulated ones have no certificate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def without_tls(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a stack file without the certificates of its servers."""
    found = dict(config)
    for section in ("redis", "postgres"):
        if section in found:
            found[section] = {key: value for key, value in found[section].items() if key != "tls"}
    return found
