"""The web application, made and warmed once in gunicorn's parent process (`--preload`) and shared by its workers.

A fresh Superset process imports and configures much of itself during its first requests, and concurrent first requests
meet that half done: synchronous SQL Lab calls were seen to fail. So it is done here, before a worker exists.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Imported by Superset on a first request (SQL Lab, chart data, asynchronous charts) rather than at start.
_LAZY = (
    "superset.sql_lab",
    "superset.sqllab.execution_context_convertor",
    "superset.commands.sql_lab.execute",
    "superset.commands.chart.data.get_data_command",
    "superset.tasks.async_queries",
    "superset.sql.parse",
)


def warm(app: Any) -> None:
    """Import, configure and connect once; leaves no connection open, since a fork must not inherit one."""
    with app.app_context():
        for name in _LAZY:
            import_module(name)
        import_module("sqlalchemy.orm").configure_mappers()
        import_module("superset.db_engine_specs").load_engine_specs()
        db = import_module("superset.extensions").db
        # The login page takes the same way through templates, translations and sessions as any other.
        app.test_client().get("/login/")
        db.session.remove()
        db.engine.dispose()


def application_factory() -> Any:
    """Superset's application, warm."""
    app = import_module("superset.app").create_app()
    warm(app)
    return app
