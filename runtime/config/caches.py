"""Superset's caches and the store of query results: one Redis database a purpose, each with its prefix and lifetime."""

from __future__ import annotations

from runtime.config.objects import ResultStore
from runtime.environment import redis_databases
from runtime.environment.secrets import Secrets
from topology.model import Purpose, Topology

#: Class of the caches, as flask-caching finds it.
BACKEND = "runtime.superset.caches.Cache"
#: Setting and purpose of each of flask-caching's caches.
CACHES: dict[str, Purpose] = {
    "CACHE_CONFIG": "metadata_cache",
    "DATA_CACHE_CONFIG": "data_cache",
    "FILTER_STATE_CACHE_CONFIG": "filter_state",
    "EXPLORE_FORM_DATA_CACHE_CONFIG": "explore_form_data",
}
#: What a user does in Explore or a dashboard lives on while it is used.
REFRESHED: frozenset[Purpose] = frozenset({"filter_state", "explore_form_data"})


def settings(topology: Topology, secrets: Secrets) -> dict[str, object]:
    """Superset's settings of caches and results."""
    caches = {name: cache(redis_databases.database(topology, secrets, purpose), purpose) for name, purpose in CACHES.items()}
    for name, purpose in CACHES.items():
        if purpose in REFRESHED:
            caches[name]["REFRESH_TIMEOUT_ON_RETRIEVAL"] = True
    return {
        **caches,
        "RESULTS_BACKEND": ResultStore(redis_databases.database(topology, secrets, "query_results")),
        # SQL Lab stores rows with this lifetime (or the database's cache_timeout), whatever the store's own default is;
        # chart data has DATA_CACHE_CONFIG's.
        "CACHE_DEFAULT_TIMEOUT": topology.caching.query_results_ttl_seconds,
    }


def cache(database: redis_databases.Database, purpose: Purpose) -> dict[str, object]:
    """flask-caching's settings of a cache of ours, which finds its server, user and secret as every process does."""
    return {
        "CACHE_TYPE": BACKEND,
        "CACHE_ARGS": [purpose],
        "CACHE_KEY_PREFIX": database.prefix,
        "CACHE_DEFAULT_TIMEOUT": database.ttl_seconds,
    }


def connection(database: redis_databases.Database) -> dict[str, object]:
    """flask-caching's settings of its own class that say where a Redis database is."""
    common: dict[str, object] = {"CACHE_REDIS_DB": database.number, "CACHE_REDIS_PASSWORD": database.password}
    if database.service is None:
        return {
            **common,
            "CACHE_TYPE": "RedisCache",
            "CACHE_REDIS_HOST": database.host,
            "CACHE_REDIS_PORT": database.port,
            "CACHE_OPTIONS": {"username": database.username, **database.client_options()},
        }
    return {
        **common,
        "CACHE_TYPE": "RedisSentinelCache",
        "CACHE_REDIS_SENTINELS": [(database.host, database.port)],
        "CACHE_REDIS_SENTINEL_MASTER": database.service,
        "CACHE_REDIS_SENTINEL_PASSWORD": database.password,
        # An option that begins with sentinel_ is one for the clients of the Sentinels themselves.
        "CACHE_OPTIONS": {
            "username": database.username,
            **database.client_options(),
            **{f"sentinel_{name}": value for name, value in database.sentinel_options().items() if name != "password"},
        },
    }
