"""Clients of redis-py, and what they answer."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.sentinel import Sentinel

from runtime.environment.redis_databases import Database


def client(database: Database) -> Redis[bytes]:
    """A client of redis-py for `database`, with its primary found through the Sentinels where there are any."""
    options: dict[str, Any] = {
        "db": database.number,
        "username": database.username,
        "password": database.password,
        **database.client_options(),
    }
    if database.service is None:
        return Redis(host=database.host, port=database.port, decode_responses=False, **options)
    sentinels = Sentinel([(database.host, database.port)], sentinel_kwargs=database.sentinel_options(), **options)
    return sentinels.master_for(database.service)


def text(value: bytes | str) -> str:
    """What a client answered, as text: with `decode_responses` it is that already."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
