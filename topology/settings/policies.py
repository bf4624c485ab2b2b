"""Exceptions from the policy pack."""

from __future__ import annotations

import datetime
from typing import Annotated

from pydantic import BeforeValidator, Field

from topology.settings.section import Section


def _is_day(value: object) -> object:
    """A day as its text. Unquoted it is a date to YAML, and to the engine a moment, which it also writes into the file."""
    text = value.isoformat() if type(value) is datetime.date else value
    if isinstance(text, str):
        text = text.removesuffix(" 00:00:00 +0000 UTC")
    try:
        datetime.date.fromisoformat(text if isinstance(text, str) and len(text) == 10 else "")
    except ValueError:
        raise ValueError("must be a day|Write it as in 2027-01-31") from None
    return text


class PolicyException(Section):
    """One rule of the policy pack that one resource may break, for a while; see docs/policies.md."""

    rule: str = Field(description="id of the rule")
    resource: str = Field(description="kind and name of the resource, such as Deployment/web")
    reason: Annotated[str, Field(min_length=10)] = Field(description="why, in a sentence")
    owner: Annotated[str, Field(min_length=2)] = Field(description="who answers for it")
    expires: Annotated[str, BeforeValidator(_is_day)] = Field(description="its last day, as in 2027-01-31")
