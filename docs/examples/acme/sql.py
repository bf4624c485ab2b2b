"""What Acme does to statements and connections. The platform's limits come after, and hold whatever is returned here."""

from __future__ import annotations


def mark_query(sql, **_):
    """Superset's SQL_QUERY_MUTATOR: whose statements they are, for the database's own log."""
    return f"/* acme */ {sql}"


def connect_as(uri, params, *_):
    """Superset's DB_CONNECTION_MUTATOR: sessions have a name in pg_stat_activity."""
    if uri.get_backend_name() == "postgresql":
        params.setdefault("connect_args", {})["application_name"] = "acme-superset"
    return uri, params


def tracked(url):
    """Superset's TRACKING_URL_TRANSFORMER: engines name a host of theirs that browsers reach by another name."""
    return url.replace("://trino:8080/", "://trino.acme.example/")


def fiscal_year(year: int) -> str:
    """In a dataset or in SQL Lab: {{ fiscal_year(2026) }}."""
    return f"FY{year + 1}"
