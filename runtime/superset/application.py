"""What this project adds to Superset's Flask application, once its own views are there; and the application of the web tier.

Names `superset.app.create_app` and the modules that Superset imports on a first request (read and tested with 6.1.0).
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

from runtime.environment import process_topology
from runtime.observability import tracing
from runtime.superset import login_rate
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from flask import Flask


def extend(app: Flask) -> None:
    """Superset's FLASK_APP_MUTATOR, called in every process that makes the application."""
    # Not above: these lean on Superset, and the configuration names this function where there is none.
    from runtime.superset import (
        audited_changes,
        audited_requests,
        bearer_tokens,
        big_numbers,
        cache_identity,
        cancelling,
        charts,
        clock,
        default_schemas,
        doctor_api,
        embedding,
        ended_sessions,
        event_log,
        few_commits,
        kept_connections,
        kept_rows,
        known_users,
        live_api,
        lost_metadata,
        owned_queries,
        page,
        request_log,
        request_schemas,
        script_guard,
        slow_api,
        sql_parser,
        status,
        stops,
        submission,
        synchronous,
        this_application,
        unkept_results,
        usage_api,
        web_requests,
    )

    this_application.remember(app)
    login_rate.limit(app)
    ended_sessions.install(app)
    embedding.install(app)
    big_numbers.install()
    kept_rows.install()
    known_users.install(app)
    bearer_tokens.install()
    event_log.install()
    cache_identity.install()
    charts.install()
    sql_parser.install()
    script_guard.install()
    stops.install()
    cancelling.install()
    clock.install()
    default_schemas.install()
    unkept_results.install()
    lost_metadata.install()
    few_commits.install()
    kept_connections.install()
    audited_changes.install(app)
    if os.environ.get(ROLE_ENV) == "web":
        # Before the log: what comes first is asked last, when it is known which query it was.
        audited_requests.install(app)
        web_requests.install(app)
        tracing.instrument(process_topology.started(), app)
        request_log.install(app)
        request_schemas.install()
        status.install()
        submission.install(app)
        synchronous.install()
        owned_queries.install()
        page.install(app)
        usage_api.install(app)
        live_api.install(app)
        doctor_api.install(app)
        slow_api.install(app)


def create() -> Flask:
    """Superset's application."""
    from superset.app import create_app

    return create_app()


def import_all(app: Flask) -> None:
    """Import and configure what Superset would on a first request or task, so that the processes that are forked share it."""
    with app.app_context():
        # For SQL Lab, chart data and asynchronous charts.
        import superset.charts.data.api
        import superset.commands.chart.data.get_data_command
        import superset.commands.sql_lab.execute
        import superset.sql.parse
        import superset.sql_lab
        import superset.sqllab.execution_context_convertor
        import superset.tasks.async_queries  # noqa: F401
        from sqlalchemy.orm import configure_mappers
        from superset.db_engine_specs import load_engine_specs

        configure_mappers()
        load_engine_specs()


def freeze() -> None:
    """Have the collector leave alone what is there: a look at it would copy its pages into each process that is forked."""
    gc.collect()
    gc.freeze()


def warm(app: Flask) -> None:
    """Import, configure and connect once; leaves no connection open, since a fork must not inherit one."""
    import_all(app)
    with app.app_context():
        from superset.extensions import db

        from runtime.superset import web_requests

        # The login page takes the same way through templates, translations and sessions as any other.
        app.test_client().get("/login/", environ_overrides={web_requests.NOT_COUNTED: True})
        db.session.remove()
        db.engine.dispose()
    freeze()
