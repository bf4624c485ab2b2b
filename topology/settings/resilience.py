"""How queries end under faults, how many may wait, and which pass the others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from topology.settings.section import Section
from topology.settings.values import Name, NotNegative, Positive


class Resilience(Section):
    """How queries end under faults, and how many may wait."""

    max_queued: Positive = Field(description="messages in one queue beyond which a submission is refused at once")
    max_in_flight_per_user: Positive = Field(
        description="one user's queries, waiting or running, beyond which one is refused"
    )
    max_retries: NotNegative = Field(
        description="tries again of a read after a lost connection; a write is never tried again"
    )
    retry_backoff_seconds: Positive = Field(
        validation_alias="retry_backoff",
        description="longest wait in seconds between tries; it doubles from one second, with jitter",
    )
    final_state_seconds: Annotated[int, Field(ge=30)] = Field(
        validation_alias="final_state",
        description="seconds after its worker or message is lost by which a query is failed, with the reason",
    )


class Urgent(Section):
    """Queries that pass the others, whatever their tenant."""

    queue: Name = Field(description="where they go; a pool must listen")
    roles: tuple[str, ...] = Field(strict=False, description="Superset roles whose queries are always urgent")
    marker_roles: tuple[str, ...] = Field(
        strict=False, description="Superset roles that may mark one query urgent, by the header X-Superset-Async-Urgent: 1"
    )
