"""The sides to compare with: Superset 6.1 without this project, as processes. Which they are is data; what they read is pure.

All have the same Valkey and PostgreSQL programs that this project's own local platform has, with passwords (SCRAM) on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Numbers of Redis databases in every stock side.
BROKER, RESULTS, CACHE, ROWS, EVENTS = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Ports:
    """Where Superset's processes find each server (behind a delay: the proxy's ports)."""

    web: int
    postgres: int
    redis: int


@dataclass(frozen=True)
class Stock:
    """One way to run Superset: gunicorn's and Celery's own arguments, and lines of its configuration.

    `source` says whose settings these are. `celery` are the attributes of the class in CELERY_CONFIG.
    """

    source: str
    gunicorn: tuple[str, ...]
    worker: tuple[str, ...]
    celery: Mapping[str, str]
    settings: tuple[str, ...] = ()
    cache_seconds: int = 300


#: The container image's entry points: one process of 20 threads; a worker of 2 children.
_CONTAINER_WEB = ("--workers=1", "--worker-class=gthread", "--threads=20", "--timeout=60", "--keep-alive=75")
_REDIS_RESULTS = "'{redis}/1'"
_IMPORTS = "('superset.sql_lab', 'superset.tasks.scheduler', 'superset.tasks.thumbnails', 'superset.tasks.cache')"
#: Of the article's names only those that something in 6.1 reads; docs/settings-of-the-article.md lists the others.
_ARTICLE_WORKER = ("--pool=prefork", "--concurrency=4")

STOCK: Mapping[str, Stock] = {
    "stock-documentation": Stock(
        "Superset's documentation: running on a WSGI server, asynchronous queries by Celery",
        (
            "--workers=10",
            "--worker-class=gevent",
            "--worker-connections=1000",
            "--timeout=120",
            "--limit-request-line=0",
            "--limit-request-field_size=0",
        ),
        ("--pool=prefork", "-O", "fair", "-c", "4"),
        {
            "result_backend": "'{redis}/0'",
            "worker_prefetch_multiplier": "10",
            "task_acks_late": "True",
            "task_annotations": "{{'sql_lab.get_sql_results': {{'rate_limit': '100/s'}}}}",
        },
    ),
    "stock-container": Stock(
        "the documentation's way, with the process counts and Celery settings of Superset's own container image",
        _CONTAINER_WEB,
        ("--pool=prefork", "-O", "fair", "-c", "2"),
        {"result_backend": _REDIS_RESULTS, "worker_prefetch_multiplier": "1", "task_acks_late": "False"},
    ),
    "article-minimal": Stock(
        "the article's minimal configuration, its real names; web as in the container, a worker of 4",
        _CONTAINER_WEB,
        _ARTICLE_WORKER,
        {
            "result_backend": _REDIS_RESULTS,
            "worker_prefetch_multiplier": "4",
            "worker_max_tasks_per_child": "1000",
            "task_track_started": "True",
            "task_time_limit": "600",
            "task_soft_time_limit": "540",
        },
        cache_seconds=3600,
    ),
    "article-enterprise": Stock(
        "the article's enterprise configuration, its real names; web as in the container, a worker of 4",
        _CONTAINER_WEB,
        _ARTICLE_WORKER,
        {
            "result_backend": "'db+{postgres}'",
            "result_expires": "3600",
            "worker_prefetch_multiplier": "1",
            "worker_max_tasks_per_child": "100",
            "task_acks_late": "True",
            "task_time_limit": "600",
            "task_soft_time_limit": "540",
        },
        ("SQLALCHEMY_ENGINE_OPTIONS = {{'pool_size': 10, 'max_overflow': 20, 'pool_recycle': 300, 'pool_pre_ping': True}}",),
        cache_seconds=3600,
    ),
    "article-high-throughput": Stock(
        "the article's high-throughput configuration, its real names; web as in the container, a worker of 4",
        _CONTAINER_WEB,
        _ARTICLE_WORKER,
        {
            "result_backend": _REDIS_RESULTS,
            "result_expires": "1800",
            "worker_prefetch_multiplier": "8",
            "worker_max_tasks_per_child": "500",
            "worker_disable_rate_limits": "True",
            "task_acks_late": "True",
            "task_compression": "'gzip'",
            "task_time_limit": "300",
            "task_soft_time_limit": "270",
        },
        cache_seconds=3600,
    ),
}


def configuration(stock: Stock, ports: Ports, secrets: Mapping[str, str]) -> str:
    """The text of superset_config.py. `secrets`: key, jwt, and the passwords of postgres and redis."""
    redis = f"redis://:{secrets['redis']}@127.0.0.1:{ports.redis}"
    postgres = f"postgresql+psycopg2://superset:{secrets['postgres']}@127.0.0.1:{ports.postgres}/superset"

    def filled(text: str) -> str:
        return text.format(redis=redis, postgres=postgres)

    server = f"CACHE_REDIS_HOST='127.0.0.1', CACHE_REDIS_PORT={ports.redis}, CACHE_REDIS_PASSWORD='{secrets['redis']}'"
    lines = [
        "from cachelib.redis import RedisCache",
        f"SECRET_KEY = '{secrets['key']}'",
        f"SQLALCHEMY_DATABASE_URI = '{postgres}'",
        f"CACHE_CONFIG = dict(CACHE_TYPE='RedisCache', CACHE_DEFAULT_TIMEOUT={stock.cache_seconds}, "
        f"CACHE_KEY_PREFIX='superset_', {server}, CACHE_REDIS_DB={CACHE})",
        "DATA_CACHE_CONFIG = CACHE_CONFIG",
        "FILTER_STATE_CACHE_CONFIG = CACHE_CONFIG",
        "EXPLORE_FORM_DATA_CACHE_CONFIG = CACHE_CONFIG",
        f"RESULTS_BACKEND = RedisCache(host='127.0.0.1', port={ports.redis}, password='{secrets['redis']}', db={ROWS}, "
        "key_prefix='superset_results')",
        "class CeleryConfig:",
        f"    broker_url = '{redis}/{BROKER}'",
        f"    imports = {_IMPORTS}",
        *(f"    {name} = {filled(value)}" for name, value in stock.celery.items()),
        "CELERY_CONFIG = CeleryConfig",
        "FEATURE_FLAGS = {'GLOBAL_ASYNC_QUERIES': True, 'ALERT_REPORTS': True}",
        f"GLOBAL_ASYNC_QUERIES_JWT_SECRET = '{secrets['jwt']}'",
        "GLOBAL_ASYNC_QUERIES_JWT_COOKIE_SECURE = False",
        f"GLOBAL_ASYNC_QUERIES_CACHE_BACKEND = dict(CACHE_TYPE='RedisCache', {server}, CACHE_REDIS_DB={EVENTS})",
        "TALISMAN_ENABLED = False",
        # One user logs in for all of the load.
        "RATELIMIT_ENABLED = False",
        *(filled(line) for line in stock.settings),
    ]
    return "\n".join(lines) + "\n"


def commands(stock: Stock, ports: Ports, folder: str) -> dict[str, tuple[str, ...]]:
    """The programs of Superset's environment that run, by tier, with their arguments."""
    celery = ("celery", "--app=superset.tasks.celery_app:app")
    web = ("gunicorn", f"--bind=127.0.0.1:{ports.web}", *stock.gunicorn, "superset.app:create_app()")
    return {
        "web": web,
        "worker": (*celery, "worker", *stock.worker, "-l", "INFO"),
        "beat": (*celery, "beat", "-l", "INFO", f"--schedule={folder}/beat-schedule", "--pidfile="),
    }
