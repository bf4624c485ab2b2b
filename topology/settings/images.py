"""Container images of a stack."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from topology.settings.section import Section
from topology.settings.values import ObjectName, matching

Image = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9._/:-]*(:(?!latest$)[A-Za-z0-9_][A-Za-z0-9._-]*|(:[A-Za-z0-9_][A-Za-z0-9._-]*)?@sha256:[0-9a-f]{64})",
        "must say exactly which image: a tag other than latest, or a digest (both: name:tag@sha256:…)"
        "|Add the tag, such as valkey/valkey:8.1.4",
    ),
]


class Images(Section):
    """Container images; each needs a tag or a digest (`name:tag@sha256:…` has both), and `latest` is refused.

    A tag can be moved to another image; a digest cannot.
    """

    superset: Image = Field(description="image built from runtime/Dockerfile; web, workers, beat and jobs run it")
    redis: Image = Field(description="server image: Valkey, or Redis 7.2 or later")
    postgres: Image = Field(description="PostgreSQL server image")
    postgres_user: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        description="id of the user postgres in that image (70 in those on Alpine); null: 999 as in the official ones on Debian, "
        "26 with cloudnativepg"
    )
    drivers: tuple[str, ...] = Field(
        strict=False, description="packages with drivers of databases that the image has beside requirements/superset.txt"
    )
    pull_secrets: tuple[ObjectName, ...] = Field(
        strict=False,
        description="Secrets in the stack's namespace (type kubernetes.io/dockerconfigjson) by which nodes pull from a registry",
    )
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(description="when the node pulls an image")
