"""Before: what is done to statements and connections, and reports that beat sends."""

from celery.schedules import crontab


class CeleryConfig:
    broker_url = "redis://redis:6379/0"
    beat_schedule = {"reports.scheduler": {"task": "reports.scheduler", "schedule": crontab(minute="*")}}
    task_annotations = {"sql_lab.get_sql_results": {"rate_limit": "100/s"}}


CELERY_CONFIG = CeleryConfig
FEATURE_FLAGS = {"ALERT_REPORTS": True, "GLOBAL_ASYNC_QUERIES": True}
GLOBAL_ASYNC_QUERIES_JWT_SECRET = "not-a-secret-but-long-enough-for-it"
CACHE_CONFIG = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": "redis://redis:6379/1"}
SMTP_HOST = "mail.example.com"
SMTP_PASSWORD = "not-a-secret"


def SQL_QUERY_MUTATOR(sql, user_name, security_manager, database):
    return f"-- {user_name}\n{sql}"


def DB_CONNECTION_MUTATOR(uri, params, username, security_manager, source):
    params.setdefault("connect_args", {})["application_name"] = f"superset {username}"
    return uri, params
