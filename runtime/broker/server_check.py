"""What a Redis server that someone else runs must be, asked of the server itself before anything is migrated.

Managed services forbid CONFIG, and some users INFO: each fact is taken from whichever answers. What a user may do is tried, on
the real keys with commands that change nothing there, or on keys of this check's own that go again.

Leans on kombu's and Celery's names of keys (read and tested with kombu 5.6.2 and Celery 5.6.3; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis import exceptions as errors

from runtime.environment import redis_databases as redis_config
from runtime.environment.redis_clients import client
from runtime.environment.secrets import Secrets
from topology.model import RedisDatabase, RedisInstance, Topology

#: Member or end of the name of every key that the check writes; it lives no longer than so many seconds.
TOKEN = "superset-async-check"  # noqa: S105 no secret
SECONDS = "60"

Command = tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be: what, its value, the rule, and the way out. A warning where nobody can tell."""

    what: str
    value: str
    rule: str
    fix: str
    warning: bool = False

    def __str__(self) -> str:
        """`what = value: rule. fix`."""
        return f"{self.what} = {self.value}: {self.rule}. {self.fix}"


@dataclass(frozen=True)
class Facts:
    """What a server says of itself; None where it does not say."""

    policy: str | None
    persistent: bool | None
    #: Whether it is in cluster mode, where keys are divided among nodes; None where it does not say.
    clustered: bool | None = None


def check(topology: Topology, secrets: Secrets) -> list[Finding]:
    """Everything that is wrong with the existing servers of `topology`; RedisError where one stops answering."""
    found: list[Finding] = []
    for instance in topology.redis:
        if instance.existing is None:
            continue
        databases = [database for database in topology.redis_databases if database.instance == instance.name]
        with closing(client(redis_config.database(topology, secrets, databases[0].purpose))) as connection:
            found += judge(instance, _facts(connection))
        for database in databases:
            with closing(client(redis_config.database(topology, secrets, database.purpose))) as connection:
                found += _try(topology, instance, database, connection)
    return found


def judge(instance: RedisInstance, facts: Facts) -> Iterator[Finding]:
    """What `facts` say against using the server for what `instance` is for."""
    if facts.clustered:
        # Kombu's transactions span keys; and its client follows no MOVED, as of every primary that became a replica.
        fix = "Use one whose cluster mode is disabled, with replicas and failover"
        yield Finding(f"cluster mode of {_where(instance)}", "on", "refuses what Celery does with several keys at once", fix)
    what = f"maxmemory-policy of {_where(instance)}"
    if facts.policy is None:
        rule = "is said neither by INFO memory nor by CONFIG GET maxmemory-policy"
        yield Finding(what, "unknown", rule, "Grant the user +info (or +config|get)")
    elif instance.carries_broker and facts.policy.startswith("allkeys-"):
        fix = "Set noeviction, or volatile-lru where the caches share the server"
        yield Finding(what, facts.policy, "evicts queued tasks without a trace when memory is full", fix)
    elif instance.carries_broker and instance.carries_caches and facts.policy == "noeviction":
        rule = "lets cached results fill the server until every submission is refused"
        yield Finding(what, facts.policy, rule, "Set volatile-lru, or give the caches a server of their own (redis.cache)")
    elif not instance.carries_broker and facts.policy == "noeviction":
        rule = "lets a full cache refuse new results instead of dropping old ones"
        yield Finding(what, facts.policy, rule, "Set volatile-lru", warning=True)
    if not instance.carries_broker or facts.persistent:
        return
    what = f"persistence of {_where(instance)}"
    if facts.persistent is None:
        rule = "cannot be seen: CONFIG is forbidden, there is no append-only file, and no snapshot since the start"
        fix = "Make sure that the service keeps the data over a restart, or queued tasks are lost with it"
        yield Finding(what, "unknown", rule, fix, warning=True)
    else:
        fix = "Set appendonly yes (and appendfsync everysec), or save points"
        yield Finding(what, "none", "loses every queued task when the server restarts", fix)


def trials(database: RedisDatabase, queues: Sequence[str]) -> list[Command]:
    """Commands that its user must be allowed in `database`: what Celery, the caches and the exporter do there."""
    match database.purpose:
        case "broker":
            return [
                *(command for queue in queues for command in _on_queue(queue)),
                ("HDEL", "unacked", TOKEN),
                ("HMGET", "unacked", TOKEN),
                ("ZREM", "unacked_index", TOKEN),
                ("ZSCAN", "unacked_index", "0", "COUNT", "1"),
            ]
        case "celery_results":
            key = f"celery-task-meta-{TOKEN}"
            return [("SETEX", key, SECONDS, ""), ("MGET", key), ("PUBLISH", key, ""), ("DEL", key)]
        case "async_events":
            key = f"async-events-{TOKEN}"
            return [("XADD", key, "*", "check", ""), ("EXPIRE", key, SECONDS), ("XRANGE", key, "-", "+"), ("DEL", key)]
        case _:
            key = f"{database.prefix}{TOKEN}"
            count = "redis.call('EXPIRE', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[1])"
            return [("SET", key, "0", "EX", SECONDS), ("GET", key), ("EVAL", count, "1", key, SECONDS), ("DEL", key)]


def _on_queue(queue: str) -> tuple[Command, ...]:
    return ("LLEN", queue), ("LREM", queue, "1", TOKEN), ("SREM", f"_kombu.binding.{queue}", TOKEN)


def _try(
    topology: Topology, instance: RedisInstance, database: RedisDatabase, connection: Redis[bytes]
) -> Iterator[Finding]:
    """What the database's user is refused there."""
    try:
        connection.ping()
    except errors.ResponseError as error:
        fix = "Give the server 16 databases; a Redis Cluster has only database 0 and cannot be used"
        yield Finding(f"database {database.number} of {_where(instance)}", "missing", f"cannot be used: {error}", fix)
        return
    user = next(each for each in instance.users if each.role == database.role)
    refused: dict[str, str] = {}
    for command in trials(database, topology.celery.queues):
        name = f"{command[0]} {command[3] if command[0] == 'EVAL' else command[1]}"
        try:
            connection.execute_command(*command)
        except errors.ResponseError as error:
            refused[name] = str(error)
    if database.purpose == "broker":
        refused |= _deaf(connection, user.subscriptions, errors.ResponseError)
    if refused:
        reach = [
            *(f"~{pattern}" for pattern in user.keys),
            *(f"&{channel}" for channel in (*user.channels, *user.subscriptions)),
        ]
        yield Finding(
            f"user {user.username!r} in database {database.number} of {_where(instance)}",
            ", ".join(refused),
            f"is refused ({'; '.join(sorted(set(refused.values())))})",
            f"On a primary, let it do all but administer on its keys and channels: {' '.join(reach)}",
        )


def _deaf(connection: Redis[bytes], patterns: Sequence[str], refusal: type[Exception]) -> dict[str, str]:
    """The channels that it may not subscribe to, with the server's word for it."""
    refused: dict[str, str] = {}
    for pattern in patterns:
        with closing(connection.pubsub()) as listener:
            try:
                listener.psubscribe(pattern)
                listener.get_message(timeout=redis_config.SOCKET_TIMEOUT_SECONDS)
            except refusal as error:
                refused[f"PSUBSCRIBE {pattern}"] = str(error)
    return refused


def _facts(connection: Redis[bytes]) -> Facts:
    memory, persistence = _told(lambda: connection.info("memory")), _told(lambda: connection.info("persistence"))
    config = _told(lambda: cast("dict[str, str]", connection.config_get("*")))
    cluster = _told(lambda: connection.info("cluster"))
    return Facts(
        memory.get("maxmemory_policy") or config.get("maxmemory-policy"),
        _persistent(config, persistence),
        bool(cluster["cluster_enabled"]) if "cluster_enabled" in cluster else None,
    )


def _persistent(config: Mapping[str, str], info: Mapping[str, Any]) -> bool | None:
    """From CONFIG GET where the server gives it, else from what INFO has seen happen."""
    if "appendonly" in config:
        return config["appendonly"] == "yes" or bool(config.get("save", "").strip("\"' "))
    return True if info.get("aof_enabled") == 1 or info.get("rdb_saves", 0) > 0 else None


def _told(ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The answer; empty where the server refuses the question."""
    try:
        return ask()
    except errors.ResponseError:
        return {}


def _where(instance: RedisInstance) -> str:
    return f"{instance.name} at {instance.host}:{instance.port}"
