"""Who decides a setting of Superset: the platform alone, the platform and the team together, or the team.

One table for the stack file, for the source of a team's own module, and for that module once a process has loaded it. A test
compares it with what `runtime.config` emits.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_QUEUES = "Set celery, workers and pools in the stack file"
_CACHES = "Set caching and redis in the stack file"
_CHARTS = "Leave it out: the platform sets up asynchronous charts"
_POSTGRES = "Set postgres in the stack file"
_LIMITS = "Set statement_timeout, celery.soft_time_limit and row_limit in the stack file"
_REQUESTS = "Set web.request_timeout in the stack file"
_RATES = "Leave it out: log-ins are counted in the stack's Redis"
_SIGN_ON = "Set superset.sign_on in the stack file"

#: Settings that the platform alone decides, with what to do instead.
OWNED: dict[str, str] = {
    "CELERY_CONFIG": _QUEUES,
    "RESULTS_BACKEND": f"{_CACHES} (caching.bucket keeps rows in S3)",
    "RESULTS_BACKEND_USE_MSGPACK": _CACHES,
    **dict.fromkeys(
        (
            "CACHE_CONFIG",
            "DATA_CACHE_CONFIG",
            "FILTER_STATE_CACHE_CONFIG",
            "EXPLORE_FORM_DATA_CACHE_CONFIG",
            "CACHE_DEFAULT_TIMEOUT",
            "STORE_CACHE_KEYS_IN_METADATA_DB",
        ),
        _CACHES,
    ),
    **dict.fromkeys(
        (
            "GLOBAL_ASYNC_QUERIES_CACHE_BACKEND",
            "GLOBAL_ASYNC_QUERIES_JWT_COOKIE_SECURE",
            "GLOBAL_ASYNC_QUERIES_JWT_SECRET",
            "GLOBAL_ASYNC_QUERIES_POLLING_DELAY",
            "GLOBAL_ASYNC_QUERIES_REDIS_STREAM_LIMIT",
            "GLOBAL_ASYNC_QUERIES_REDIS_STREAM_LIMIT_FIREHOSE",
            "GLOBAL_ASYNC_QUERIES_REDIS_STREAM_PREFIX",
            "GLOBAL_ASYNC_QUERIES_TRANSPORT",
            "GLOBAL_ASYNC_QUERY_MANAGER_CLASS",
        ),
        _CHARTS,
    ),
    **dict.fromkeys(
        ("SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_ENGINE_OPTIONS", "SQLALCHEMY_BINDS", "ALEMBIC_SKIP_LOG_CONFIG"), _POSTGRES
    ),
    "SECRET_KEY": "Leave it out: it is generated and kept as a secret of the stack",
    **dict.fromkeys(("SQLLAB_ASYNC_TIME_LIMIT_SEC", "SQL_MAX_ROW"), _LIMITS),
    "SUPERSET_WEBSERVER_TIMEOUT": _REQUESTS,
    "SESSION_COOKIE_SECURE": "Set web.secure_cookies in the stack file",
    "SESSION_COOKIE_HTTPONLY": "Leave it out: no script may read the session's cookie",
    **dict.fromkeys(("ENABLE_PROXY_FIX", "PROXY_FIX_CONFIG"), "Set web.proxies in the stack file"),
    "MAX_CONTENT_LENGTH": "Set web.max_upload in the stack file",
    **dict.fromkeys(
        ("AUTH_RATE_LIMITED", "AUTH_RATE_LIMIT", "RATELIMIT_HEADERS_ENABLED"), "Set web.login_rate in the stack file"
    ),
    **dict.fromkeys(
        (
            "RATELIMIT_STORAGE_URI",
            "RATELIMIT_STORAGE_OPTIONS",
            "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED",
            "RATELIMIT_APPLICATION",
        ),
        _RATES,
    ),
    **dict.fromkeys(
        ("GET_FEATURE_FLAGS_FUNC", "IS_FEATURE_ENABLED_FUNC"), "Set superset.feature_flags: a function could turn ours off"
    ),
}
#: What `superset.sign_on` sets: a stack that says how users log in says it in one place.
SIGN_ON: frozenset[str] = frozenset(
    {
        "AUTH_TYPE",
        "AUTH_ROLES_MAPPING",
        "AUTH_ROLES_SYNC_AT_LOGIN",
        "AUTH_USER_REGISTRATION",
        "AUTH_USER_REGISTRATION_ROLE",
        "AUTH_REMOTE_USER_ENV_VAR",
        "OAUTH_PROVIDERS",
        "AUTH_LDAP_SERVER",
        "AUTH_LDAP_USE_TLS",
        "AUTH_LDAP_ALLOW_SELF_SIGNED",
        "AUTH_LDAP_TLS_DEMAND",
        "AUTH_LDAP_TLS_CACERTFILE",
        "AUTH_LDAP_SEARCH",
        "AUTH_LDAP_SEARCH_FILTER",
        "AUTH_LDAP_UID_FIELD",
        "AUTH_LDAP_BIND_USER",
        "AUTH_LDAP_BIND_PASSWORD",
        "AUTH_LDAP_GROUP_FIELD",
        "AUTH_LDAP_FIRSTNAME_FIELD",
        "AUTH_LDAP_LASTNAME_FIELD",
        "AUTH_LDAP_EMAIL_FIELD",
    }
)
#: What `superset.embedding` decides: guests have a role of their own and no cookie, and only the sites that the stack names have
#: frames and the API.
EMBEDDING: dict[str, str] = {
    "GUEST_ROLE_NAME": "Set superset.embedding.role in the stack file",
    **dict.fromkeys(("ENABLE_CORS", "CORS_OPTIONS"), "Set superset.embedding.origins in the stack file"),
    "SESSION_COOKIE_SAMESITE": "Leave it out: guests need no cookie, and those of users stay with Superset's own pages",
    "TALISMAN_ENABLED": "Leave it out: it is how browsers learn which sites superset.embedding lets in",
}
#: Feature flags that the platform decides.
OWNED_FLAGS: dict[str, str] = {
    "GLOBAL_ASYNC_QUERIES": "Leave it out: the platform turns it on",
}
#: Settings that are objects: a stack file cannot say them, and the team's own module can.
OBJECTS: frozenset[str] = frozenset(
    {
        "ADDITIONAL_MIDDLEWARE",
        "ALLOWED_EXTRA_AUTHENTICATIONS",
        "BLUEPRINTS",
        "COMMON_BOOTSTRAP_OVERRIDES_FUNC",
        "CUSTOM_SECURITY_MANAGER",
        "CUSTOM_TEMPLATE_PROCESSORS",
        "DATASET_HEALTH_CHECK",
        "DB_CONNECTION_MUTATOR",
        "DB_SQLA_URI_VALIDATOR",
        "ENGINE_CONTEXT_MANAGER",
        "EVENT_LOGGER",
        "FLASK_APP_MUTATOR",
        "GUEST_TOKEN_VALIDATOR_HOOK",
        "JINJA_CONTEXT_ADDONS",
        "LOGGING_CONFIGURATOR",
        "SQLA_TABLE_MUTATOR",
        "SQL_QUERY_MUTATOR",
        "STATS_LOGGER",
        "TRACKING_URL_TRANSFORMER",
        "USER_AGENT_FUNC",
    }
)
#: Settings that are secrets: a stack file is no place for their value.
SECRETS: frozenset[str] = frozenset(
    {
        "AUTH_LDAP_BIND_PASSWORD",
        "CACHE_MEMCACHED_PASSWORD",
        "CACHE_REDIS_PASSWORD",
        "CACHE_REDIS_SENTINEL_PASSWORD",
        "GUEST_TOKEN_JWT_SECRET",
        "JWT_PRIVATE_KEY",
        "JWT_SECRET_KEY",
        "MAPBOX_API_KEY",
        "MCP_JWT_SECRET",
        "PREVIOUS_SECRET_KEY",
        "RECAPTCHA_PRIVATE_KEY",
        "SLACK_API_TOKEN",
        "SMTP_PASSWORD",
        "WTF_CSRF_SECRET_KEY",
    }
)


def refusal(name: str, *, signs_on: bool, embeds: bool) -> str | None:
    """What to do instead of setting `name`; None where a team may.

    `signs_on` and `embeds`: whether the stack has a `superset.sign_on`, and a `superset.embedding`.
    """
    if name in SIGN_ON and signs_on:
        return _SIGN_ON
    if name in EMBEDDING and embeds:
        return EMBEDDING[name]
    return OWNED.get(name)


def assigned(source: str) -> Iterator[tuple[str, int]]:
    """The settings that a module's source assigns at its top level, with their lines; SyntaxError where it is no Python."""
    tree = ast.parse(source)
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop(0)
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        elif isinstance(node, ast.If | ast.With | ast.Try | ast.For | ast.While):
            handlers = [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
            todo = [*node.body, *getattr(node, "orelse", []), *handlers, *getattr(node, "finalbody", []), *todo]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name.isupper():
            yield node.name, node.lineno
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                if isinstance(part, ast.Name) and part.id.isupper():
                    yield part.id, node.lineno


def secrets_in_clear(source: str) -> Iterator[tuple[str, int]]:
    """The secrets whose values a module's source has as they are, with their lines; SyntaxError where it is no Python."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in SECRETS and node.value.value:
                    yield target.id, node.lineno
