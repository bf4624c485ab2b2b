"""The layout of Redis: which servers there are, their users, and what each numbered database is for."""

from __future__ import annotations

from collections.abc import Sequence

from topology import server_tls
from topology.model import (
    BROKER_PURPOSES,
    ExistingRedis,
    Purpose,
    RedisDatabase,
    RedisInstance,
    RedisRole,
    RedisUser,
    ServerTls,
)
from topology.platforms import Platform
from topology.settings import RedisSettings, Settings
from topology.settings.redis import RedisServer
from topology.settings.section import inherited

DAY = 86_400
#: Redis database numbers. Everything that must not be lost comes first and lives with the broker.
DATABASE_NUMBERS: dict[Purpose, int] = {
    "broker": 0,
    "celery_results": 1,
    "async_events": 2,
    "metadata_cache": 3,
    "data_cache": 4,
    "filter_state": 5,
    "explore_form_data": 6,
    "query_results": 7,
    "rate_limits": 8,
    "coordination": 9,
}
#: Ends the pattern of the lists that kombu makes for a queue's priorities 3, 6 and 9: two control characters and the number.
PRIORITIES = "??[369]"


def redis_instances(platform: Platform, settings: Settings, queues: Sequence[str]) -> tuple[RedisInstance, ...]:
    """The servers: one that the caches share with the broker, or one for each. `queues` are all that the broker holds."""
    cache = _cache_user()
    if settings.redis.cache is None:
        users = (*_broker_users(_broker_keys(queues)), cache)
        return (_redis_instance(platform, settings, "redis.broker", "redis", *users),)
    return (
        # All keys there are the broker's: a new queue changes nothing for the server.
        _redis_instance(platform, settings, "redis.broker", "redis-broker", *_broker_users(("*",))),
        _redis_instance(platform, settings, "redis.cache", "redis-cache", cache),
    )


def _broker_keys(queues: Sequence[str]) -> tuple[str, ...]:
    """Patterns of every key of Celery's and kombu's, and of Superset's event streams."""
    return (
        # A queue is a list of its name, and one more for each other priority.
        *(key for queue in queues for key in (queue, f"{queue}{PRIORITIES}")),
        "_kombu.binding.*",
        "unacked*",
        "*.celery.pidbox",
        f"*.celery.pidbox{PRIORITIES}",
        "celeryev*",
        "celery-task-meta-*",
        "async-events-*",
        f"{_prefix('coordination')}*",
    )


def _broker_users(keys: tuple[str, ...]) -> tuple[RedisUser, ...]:
    """Whom messages, Celery's results and async events belong to; who reads them; and who asks workers."""
    fanout = f"/{DATABASE_NUMBERS['broker']}."
    # Remote control, and what a monitor listens to.
    subscriptions = tuple(f"{fanout}{name}" for name in ("celery.pidbox", "celeryev/*", "celeryev/worker.*"))
    return (
        RedisUser(
            role="broker",
            username="broker",
            password_env="REDIS_BROKER_PASSWORD",
            keys=keys,
            channels=(f"{fanout}celery*", "celery-task-meta-*"),
            subscriptions=subscriptions,
        ),
        # The exporter, KEDA. Keys that their script names must be granted for writing, too: its commands are what they may do.
        RedisUser(
            role="reader",
            username="reader",
            password_env="REDIS_READER_PASSWORD",
            keys=keys,
            channels=(),
            subscriptions=(),
        ),
        RedisUser(
            role="monitor",
            username="monitor",
            password_env="REDIS_MONITOR_PASSWORD",
            # Its own mailbox, and where tools say what they listen to.
            keys=(
                "*.reply.celery.pidbox",
                f"*.reply.celery.pidbox{PRIORITIES}",
                "celeryev*",
                *(
                    f"_kombu.binding.{exchange}"
                    for exchange in ("celery", "celeryev", "celery.pidbox", "reply.celery.pidbox")
                ),
            ),
            # Celery without an application knows one queue, `celery`.
            reads=keys if "*" in keys else (*keys, "celery", f"celery{PRIORITIES}"),
            channels=(f"{fanout}celery.pidbox", f"{fanout}celeryev/*"),
            subscriptions=subscriptions,
        ),
    )


def _cache_user() -> RedisUser:
    return RedisUser(
        role="cache",
        username="cache",
        password_env="REDIS_CACHE_PASSWORD",
        keys=tuple(f"{_prefix(purpose)}*" for purpose in DATABASE_NUMBERS if purpose not in BROKER_PURPOSES),
        channels=(),
        subscriptions=(),
    )


def _prefix(purpose: Purpose) -> str:
    # Celery and Superset's event streams take no prefix from here.
    return "" if purpose in BROKER_PURPOSES - {"coordination"} else f"{purpose}:"


def _redis_instance(platform: Platform, settings: Settings, section: str, name: str, *users: RedisUser) -> RedisInstance:
    servers = settings.redis.servers()
    redis = servers[section]
    address = platform.redis_address(settings, name, list(servers).index(section))
    roles = {user.role for user in users}
    existing = redis.existing
    if existing:
        users = tuple(user.model_copy(update={"username": existing.username}) for user in users)
    return RedisInstance(
        **inherited(redis, RedisServer),
        name=name,
        host=existing.host if existing else address.host,
        port=existing.port if existing else address.port,
        tls=_redis_tls(platform, settings, redis, name),
        existing=ExistingRedis(password_secret_name=existing.password_secret) if existing else None,
        users=users,
        carries_broker="broker" in roles,
        carries_caches="cache" in roles,
    )


def _redis_tls(platform: Platform, settings: Settings, redis: RedisSettings, name: str) -> ServerTls | None:
    if redis.existing is not None:
        return server_tls.of_others(name, redis.existing.ca_secret) if redis.existing.tls else None
    if settings.redis.tls is not None:
        return server_tls.of_ours(name, settings.redis.tls)
    return server_tls.of_others(name, None) if platform.redis_speaks_tls else None


def redis_databases(settings: Settings, redis: tuple[RedisInstance, ...]) -> tuple[RedisDatabase, ...]:
    """What each numbered database of the servers is for, and how long its keys live."""
    lifetimes: dict[Purpose, int | None] = {
        "broker": None,
        "celery_results": settings.celery.result_expires_seconds,
        "async_events": None,
        "coordination": None,
        "metadata_cache": DAY,
        "data_cache": settings.caching.chart_data_ttl_seconds,
        "filter_state": 90 * DAY,
        "explore_form_data": 7 * DAY,
        "query_results": settings.caching.query_results_ttl_seconds,
        "rate_limits": 60,
    }
    if settings.celery.result_backend != "redis":
        del lifetimes["celery_results"]
    instances = {user.role: instance.name for instance in redis for user in instance.users}
    roles: dict[Purpose, RedisRole] = {
        purpose: "broker" if purpose in BROKER_PURPOSES else "cache" for purpose in DATABASE_NUMBERS
    }
    return tuple(
        RedisDatabase(
            purpose=purpose,
            instance=instances[roles[purpose]],
            role=roles[purpose],
            number=number,
            prefix=_prefix(purpose),
            default_ttl_seconds=lifetimes[purpose],
        )
        for purpose, number in DATABASE_NUMBERS.items()
        if purpose in lifetimes
    )
