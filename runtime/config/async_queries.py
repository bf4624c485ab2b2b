"""Asynchronous charts (Superset's global async queries): events on Redis streams, a signed cookie for each channel."""

from __future__ import annotations

from runtime.config.caches import connection
from runtime.environment import redis_databases
from runtime.environment.secrets import Secrets
from topology.model import Topology

#: Events kept in each channel's stream, and in the one stream of all events, which nothing here reads. Streams never
#: expire, so the second is what bounds their memory: an event has 0.4 kB without its errors.
CHANNEL_EVENTS = 1000
ALL_EVENTS = 10_000


def settings(topology: Topology, secrets: Secrets) -> dict[str, object]:
    """Superset's settings of asynchronous charts."""
    return {
        "FEATURE_FLAGS": {
            "GLOBAL_ASYNC_QUERIES": True,
            # Without it Superset takes no guest tokens.
            "EMBEDDED_SUPERSET": topology.embedding,
        },
        "GLOBAL_ASYNC_QUERIES_JWT_SECRET": secrets.jwt_secret,
        "GLOBAL_ASYNC_QUERIES_JWT_COOKIE_SECURE": topology.web.secure_cookies,
        "GLOBAL_ASYNC_QUERIES_JWT_COOKIE_SAMESITE": "Lax",
        "GLOBAL_ASYNC_QUERIES_TRANSPORT": "polling",
        "GLOBAL_ASYNC_QUERIES_REDIS_STREAM_LIMIT": CHANNEL_EVENTS,
        "GLOBAL_ASYNC_QUERIES_REDIS_STREAM_LIMIT_FIREHOSE": ALL_EVENTS,
        "GLOBAL_ASYNC_QUERY_MANAGER_CLASS": "runtime.superset.chart_events.AsyncQueryManager",
        "GLOBAL_ASYNC_QUERIES_CACHE_BACKEND": connection(redis_databases.database(topology, secrets, "async_events")),
    }
