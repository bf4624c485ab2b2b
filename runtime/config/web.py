"""What protects the web tier: cookies, CSRF, response headers, the proxy in front, and the rate of log-ins."""

from __future__ import annotations

import hashlib
import hmac

from runtime.config.objects import EventLog, StatsLog
from runtime.environment import redis_databases
from runtime.environment.secrets import Secrets
from runtime.superset import application
from topology.model import Topology


def settings(topology: Topology, secrets: Secrets) -> dict[str, object]:
    """Superset's settings of the web tier."""
    return {
        "SESSION_COOKIE_SECURE": topology.web.secure_cookies,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "WTF_CSRF_ENABLED": True,
        "TALISMAN_ENABLED": True,
        "TALISMAN_CONFIG": _headers(telemetry=topology.web.telemetry),
        # As shipped PostgreSQL's statements are checked by a program that no image has: each valid one is marked as wrong.
        "SQL_VALIDATORS_BY_ENGINE": {},
        # A proxy ends TLS and says in X-Forwarded-* what the client asked for; without one the headers would be a client's
        # own word.
        "ENABLE_PROXY_FIX": topology.web.behind_proxy and topology.web.proxies > 0,
        # Each proxy adds an address; of the rest the last one speaks.
        "PROXY_FIX_CONFIG": {"x_for": topology.web.proxies, "x_proto": 1, "x_host": 1, "x_port": 1, "x_prefix": 1},
        "MAX_CONTENT_LENGTH": topology.web.max_upload_bytes,
        # Superset's default is a string that everyone knows; embedded dashboards would accept what it signs.
        "GUEST_TOKEN_JWT_SECRET": _derived(secrets.secret_key, "guest tokens"),
        "FLASK_APP_MUTATOR": application.extend,
        "EVENT_LOGGER": EventLog(),
        "STATS_LOGGER": StatsLog(),
        "RATELIMIT_ENABLED": True,
        "AUTH_RATE_LIMITED": True,
        "AUTH_RATE_LIMIT": topology.web.login_rate,
        # Retry-After, so that a client knows when.
        "RATELIMIT_HEADERS_ENABLED": True,
        # Only log-ins are limited. A limit on all requests would count every poll of every user behind one
        # address together.
        "RATELIMIT_APPLICATION": None,
        **_rate_storage(redis_databases.database(topology, secrets, "rate_limits")),
        # Without the cache server each process counts for itself: people can still log in.
        "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED": True,
    }


#: Superset's THEME_FONT_URL_ALLOWED_DOMAINS.
FONT_HOSTS = ("fonts.googleapis.com", "fonts.gstatic.com", "use.typekit.net", "use.typekit.com")
#: Where Superset's pages report each visit to.
TELEMETRY_HOSTS = ("https://apachesuperset.gateway.scarf.sh", "https://static.scarf.sh/")


def _headers(*, telemetry: bool) -> dict[str, object]:
    """Superset's own TALISMAN_CONFIG (6.1.0, a test compares them), without the hosts of its telemetry unless that is wanted.

    The address is in the pages themselves: a browser that may load no image from there does not call it.
    """
    fonts = [f"https://{host}" for host in FONT_HOSTS]
    policy: dict[str, object] = {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": [
            "'self'",
            "blob:",
            "data:",
            *(TELEMETRY_HOSTS if telemetry else ()),
            "ows.terrestris.de",
            "https://cdn.document360.io",
        ],
        "worker-src": ["'self'", "blob:"],
        "connect-src": [
            "'self'",
            "https://api.mapbox.com",
            "https://events.mapbox.com",
            "https://tile.openstreetmap.org",
            "https://tile.osm.ch",
            "https://a.basemaps.cartocdn.com",
        ],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'", *fonts],
        "font-src": ["'self'", *fonts],
        "script-src": ["'self'", "'strict-dynamic'"],
    }
    return {
        "content_security_policy": policy,
        "content_security_policy_nonce_in": ["script-src"],
        "force_https": False,
        "session_cookie_secure": False,
    }


def _rate_storage(database: redis_databases.Database) -> dict[str, object]:
    if database.service is None:
        uri = database.url
        # Here it is the URL's scheme that says whether over TLS.
        options = {key: value for key, value in database.client_options().items() if key != "ssl"}
    else:
        # Here the URL's last part is the service; and a quoted password in it would be taken literally.
        uri = f"redis+sentinel://{database.host}:{database.port}/{database.service}"
        options = {
            **database.client_options(),
            "db": database.number,
            "username": database.username,
            "password": database.password,
            "sentinel_kwargs": database.sentinel_options(),
            # A replica lags: what it has counted is too little.
            "use_replicas": False,
        }
    return {
        "RATELIMIT_STORAGE_URI": uri,
        # The store puts the colon after it.
        "RATELIMIT_STORAGE_OPTIONS": {**options, "key_prefix": database.prefix.removesuffix(":")},
    }


def _derived(secret_key: str, use: str) -> str:
    """A secret of its own for `use`, the same in every process that has `secret_key`."""
    return hmac.new(secret_key.encode(), use.encode(), hashlib.sha256).hexdigest()
