"""The `kubernetes` platform: servers are Services of the stack's namespace, and workers and web pods come and go."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology
from topology.platforms.elsewhere import not_on_aws
from topology.platforms.platform import Address, Platform
from topology.problems import Problem
from topology.settings import Settings

REDIS_PORT = 6379
WEB_PORT = 8088
EXPORTER_PORT = 9808


def no_sample_database(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The sample database is one that `make up` fills; a cluster has none."""
    for name, database in settings.databases.items():
        if database.sample:
            yield Problem(f"databases.{name}.sample", "true", "is for platform local only", "Remove it", also=("platform",))


def spilled_results_have_a_volume(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Pods share no folder but a volume."""
    spill = settings.caching.spill
    if spill is not None and spill.claim is None:
        yield Problem(
            "caching.spill.claim",
            "null",
            "must name a volume claim on Kubernetes: a pod's own folder is not seen by the others",
            "Name an existing claim with ReadWriteMany, or set caching.spill to null",
            also=("caching.spill", "platform"),
        )


def no_bucket(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Pods have no credentials for one; on AWS the platform gives them both."""
    if settings.caching.bucket is not None:
        yield Problem(
            "caching.bucket",
            settings.caching.bucket.name,
            "is not for platform kubernetes: pods have no credentials for it",
            "Set it to null; caching.spill keeps large results on a volume",
            also=("platform",),
        )


def _redis_address(settings: Settings, name: str, index: int) -> Address:
    return Address(name, REDIS_PORT)


def _postgres_address(settings: Settings) -> Address:
    return Address(settings.postgres.host or "postgres", settings.postgres.port)


def _web_address(settings: Settings) -> Address:
    return Address("web", WEB_PORT)


def _exporter_address(settings: Settings) -> Address:
    return Address("exporter", EXPORTER_PORT)


KUBERNETES = Platform(
    # A pod's own address, behind network policies.
    bind="0.0.0.0",  # noqa: S104
    behind_proxy=True,
    elastic_workers=False,
    redis_address=_redis_address,
    postgres_address=_postgres_address,
    web_address=_web_address,
    exporter_address=_exporter_address,
    rules=(no_sample_database, spilled_results_have_a_volume, no_bucket, not_on_aws),
)
