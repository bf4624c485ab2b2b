"""How long a query may take and how many rows it may return."""

from __future__ import annotations

from runtime.superset import synchronous
from runtime.superset.statement_timeout import StatementTimeout
from runtime.tenants.identity import working_tenant
from topology.model import Topology


def settings(topology: Topology) -> dict[str, object]:
    """Superset's settings of time and row limits."""
    rows = topology.row_limit
    return {
        "DB_CONNECTION_MUTATOR": StatementTimeout(
            default_seconds=topology.statement_timeout_seconds,
            most_seconds=topology.celery.soft_time_limit_seconds,
            working_for=working_tenant,
            request_seconds=synchronous.seconds,
        ),
        # Superset gives it to the chart tasks as their soft limit, and quotes it to users.
        "SQLLAB_ASYNC_TIME_LIMIT_SEC": topology.celery.soft_time_limit_seconds,
        # What waits so long holds a web thread: synchronous queries, and statements of the web tier itself.
        "SQLLAB_TIMEOUT": min(30, topology.web.request_timeout_seconds),
        "SUPERSET_WEBSERVER_TIMEOUT": topology.web.request_timeout_seconds,
        "SQL_MAX_ROW": rows,
        "ROW_LIMIT": min(50_000, rows),
        "DISPLAY_MAX_ROW": min(10_000, rows),
        "DEFAULT_SQLLAB_LIMIT": min(1_000, rows),
    }
