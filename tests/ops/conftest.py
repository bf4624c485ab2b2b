"""The commands talk to the same server that plays Superset as the client's tests."""

from __future__ import annotations

from tests.client.conftest import superset

__all__ = ["superset"]
