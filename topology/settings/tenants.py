"""Tenants: how their queries are recognised, what they get, and what that costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from topology.settings.resources import Quota
from topology.settings.section import Section
from topology.settings.values import Positive, matching

TenantPool = Literal["shared", "dedicated"]
Priority = Literal["low", "normal", "high"]


class GuestClaim(Section):
    """A claim by which an embedded guest's token is a tenant's."""

    claim: Annotated[str, matching(r"[A-Za-z_][\w.-]*", "must be a dotted path|Write it as in user.username")] = Field(
        description="dotted path in the token, such as user.username; a list matches by any of its items"
    )
    value: str = Field(description="what stands there; a trailing * matches any ending")


class TenantTerms(Section):
    """What a tenant is recognised by and may spend, as a stack file says it and a topology has it."""

    users: tuple[str, ...] = Field(
        default=(), strict=False, description="Superset user names whose queries are this tenant's"
    )
    roles: tuple[str, ...] = Field(
        default=(), strict=False, description="Superset roles whose users' queries are this tenant's"
    )
    groups: tuple[str, ...] = Field(
        default=(), strict=False, description="groups of superset.sign_on whose members' queries are this tenant's"
    )
    databases: tuple[str, ...] = Field(
        default=(), strict=False, description="names of databases in Superset; queries of them are this tenant's"
    )
    guests: tuple[GuestClaim, ...] = Field(
        default=(), strict=False, description="claims of embedded guests' tokens that are this tenant's"
    )
    result_ttl_seconds: Positive | None = Field(
        default=None,
        validation_alias="result_ttl",
        description="seconds that its results are kept; default: as in caching",
    )
    monthly_budget: Annotated[float, Field(gt=0, strict=False, allow_inf_nan=False)] | None = Field(
        default=None, description="in the rates' currency; reports say what is left of it"
    )


class TenantSettings(TenantTerms):
    """One tenant: how its queries are recognised, and what they get. At least one of the first five must be given.

    A claim of the guest token decides first, then the user, then the user's roles, then the database.
    """

    pool: TenantPool = Field(
        default="dedicated", description="dedicated: workers of its own; shared: those of the default queue"
    )
    concurrency: Positive | None = Field(default=None, description="dedicated: child processes of each of its workers")
    min_workers: Positive | None = Field(default=None, description="dedicated: its workers at rest")
    max_workers: Positive | None = Field(default=None, description="dedicated: its workers under load")
    in_flight: Positive | None = Field(
        default=None, description="shared: children of one worker that it may hold at once; default: all but one"
    )
    priority: Priority = Field(
        default="normal",
        description="dedicated: whose pods are placed first; shared: whose turn comes first: low, normal, high",
    )
    quota: Quota | None = Field(default=None, description="dedicated: the most that its pods may request; null: no limit")
    soft_time_limit: Positive | None = Field(default=None, description="seconds; default: celery.soft_time_limit")
    time_limit: Positive | None = Field(default=None, description="seconds; default: celery.time_limit")
    statement_timeout: Positive | None = Field(default=None, description="seconds; default: the stack's statement_timeout")


class Rates(Section):
    """What the platform costs, for reports of cost by tenant, user or database."""

    worker_hour: Annotated[float, Field(ge=0, strict=False, allow_inf_nan=False)] = Field(
        description="one worker for an hour"
    )
    redis_hour: Annotated[float, Field(ge=0, strict=False, allow_inf_nan=False)] = Field(
        description="all Redis servers for an hour"
    )
    currency: Annotated[str, matching(r"[A-Z]{3}", "must be a currency's code|Write it as in USD")] = Field(
        description="of the rates and budgets"
    )
