"""The base of everything that a topology is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of every part: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
