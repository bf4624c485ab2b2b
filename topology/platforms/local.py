"""The `local` platform: every server is one process of this machine, on the loopback address and a port of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from topology.model import Topology
from topology.platforms.elsewhere import not_on_aws
from topology.platforms.platform import Address, Platform
from topology.problems import Problem
from topology.settings import RedisSettings, Section, Settings

LOOPBACK = "127.0.0.1"
_Section = TypeVar("_Section", bound=Section)


def no_existing_servers(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """PostgreSQL and Redis are processes of `make up`."""
    if settings.postgres.kind == "existing":
        yield Problem("postgres.kind", "existing", "is not for platform local", "Leave it out", also=("platform",))
    for key, redis in settings.redis.servers().items():
        if redis.existing is not None:
            yield Problem(f"{key}.existing", "…", "is not for platform local", "Set it to null", also=("platform",))


def ports_are_distinct(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """No two processes listen on one port."""
    ports = settings.local
    taken = {ports.web_port: "local.web_port"}
    for key, port in (
        ("local.postgres_port", ports.postgres_port),
        ("local.exporter_port", ports.exporter_port),
        ("local.prometheus_port", ports.prometheus_port),
        ("local.alertmanager_port", ports.alertmanager_port),
        *(("local.redis_port", ports.redis_port + index) for index, _ in enumerate(settings.redis.servers())),
    ):
        if taken.setdefault(port, key) != key:
            yield Problem(key, str(port), f"is taken by {taken[port]}", "Choose another port", also=(taken[port],))


def one_process_of_each(settings: Settings) -> Settings:
    """One machine has nothing to fail over to, no second pod to scale to, and no way in from outside."""
    redis = settings.redis
    return _with(
        settings,
        redis=_with(
            redis,
            broker=_single(redis.broker),
            cache=redis.cache and _single(redis.cache),
            # On the loopback address nobody can listen in.
            tls=None,
        ),
        postgres=_with(settings.postgres, instances=1, backup=None, tls=None),
        # A browser does not send a secure cookie over the plain HTTP of the loopback address.
        web=_with(settings.web, min_replicas=1, max_replicas=1, secure_cookies=False, proxies=0, route=None),
        workers=_with(settings.workers, scaling=None),
        pools={name: _with(pool, scaling=None) for name, pool in settings.pools.items()},
    )


def _single(redis: RedisSettings) -> RedisSettings:
    return _with(redis, replicas=0, sentinel=False)


def _with(section: _Section, **changed: Any) -> _Section:
    return section.model_copy(update=changed)


def _redis_address(settings: Settings, name: str, index: int) -> Address:
    return Address(LOOPBACK, settings.local.redis_port + index)


def _postgres_address(settings: Settings) -> Address:
    return Address(LOOPBACK, settings.local.postgres_port)


def _web_address(settings: Settings) -> Address:
    return Address(LOOPBACK, settings.local.web_port)


def _exporter_address(settings: Settings) -> Address:
    return Address(LOOPBACK, settings.local.exporter_port)


LOCAL = Platform(
    bind=LOOPBACK,
    # The headers would be a client's own word.
    behind_proxy=False,
    elastic_workers=True,
    redis_address=_redis_address,
    postgres_address=_postgres_address,
    web_address=_web_address,
    exporter_address=_exporter_address,
    rules=(no_existing_servers, ports_are_distinct, not_on_aws),
    fit=one_process_of_each,
)
