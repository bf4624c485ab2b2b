"""What is no data: Superset 6.1 calls the first with names, and without a user's name."""

from superset.utils.core import get_username


def SQL_QUERY_MUTATOR(sql, **_):
    """Whose statement it is, for the database's own log."""
    return f"-- {get_username()}\n{sql}"


def DB_CONNECTION_MUTATOR(uri, params, username, security_manager, source):
    """The user's name in pg_stat_activity."""
    if uri.get_backend_name() == "postgresql":
        params.setdefault("connect_args", {})["application_name"] = f"superset {username}"
    return uri, params
