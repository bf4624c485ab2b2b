"""The analytic databases that users query."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from topology.settings.section import Section
from topology.settings.values import Cidr, Positive, ServerPort, is_uri


class DatabaseOptions(Section):
    """What an analytic database is, as a stack file says it and a topology has it."""

    uri: str | None = Field(default=None, description="SQLAlchemy URI without a password")
    allow_dml: bool = Field(default=False, description="users may write; else sessions of PostgreSQL are read-only")
    sample: bool = Field(default=False, description="the generated sample database; local only")

    @field_validator("uri")
    @classmethod
    def _can_be_read(cls, uri: str | None) -> str | None:
        if uri is not None and not is_uri(uri):
            raise ValueError("is no SQLAlchemy URI|Write it as in trino://user@host:8080/hive; the password is a secret")
        if uri is not None and urlsplit(uri).password is not None:
            raise ValueError(
                "must not contain a password|Leave uri out and store the whole URI as the secret "
                "superset-async:database_uris (pulumi config set --secret --path)"
            )
        return uri


class DatabaseSettings(DatabaseOptions):
    """An analytic database to register in Superset. Without `uri` the whole URI is a secret: see docs/configuration.md."""

    statement_timeout: Positive | None = Field(default=None, description="seconds; default: the stack's statement_timeout")
    cidrs: tuple[Cidr, ...] | None = Field(
        default=None,
        strict=False,
        description="on a cluster: networks of the server, where pods may reach its ports; null: the address, or the Service's "
        "namespace, that the URI's host is",
    )
    ports: Annotated[tuple[ServerPort, ...], Field(min_length=1)] | None = Field(
        default=None, strict=False, description="on a cluster: its ports; null: the URI's, or the one that its dialect has"
    )
    keep_connections: bool | None = Field(
        default=None,
        description=(
            "a worker's child keeps its connection to PostgreSQL for the next query, and resets the session in between; never "
            "behind a pooler in transaction mode; default: true for the sample database, else false"
        ),
    )
