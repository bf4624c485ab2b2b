"""What every platform but AWS refuses: settings that only AWS can carry out."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings


def not_on_aws(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The section `aws` and an RDS instance are nothing elsewhere."""
    if settings.aws is not None:
        yield Problem(
            "aws",
            "…",
            f"is not for platform {settings.platform}",
            "Remove it, or set platform: aws",
            also=("platform",),
        )
    if settings.postgres.kind == "rds":
        yield Problem(
            "postgres.kind",
            "rds",
            f"is not for platform {settings.platform}",
            "Use statefulset, cloudnativepg or existing",
            also=("platform",),
        )
