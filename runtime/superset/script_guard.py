"""A script of SQL Lab that would lift a guard of its session is refused before any of it runs; and what Superset was told without
the stack has sessions that only read, too, where it allows no writing.

Replaces `superset.sql_lab.execute_sql_statements`, which both asynchronous and synchronous queries go through, and
`superset.models.core.Database.get_extra` (read and tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.environment import hooks, versions
from runtime.queries import session_guard
from runtime.superset.statement_timeout import READ_ONLY


def install() -> None:
    """Guard this process's scripts and databases; UntestedVersionError for a Superset of another version."""
    from superset import sql_lab
    from superset.models.core import Database

    versions.require(__name__)
    hooks.replace(sql_lab, "execute_sql_statements", __name__, _guard_scripts)
    hooks.replace(Database, "get_extra", __name__, _guard_databases)


def _guard_scripts(shipped: Callable[..., Any]) -> Callable[..., Any]:
    from superset import sql_lab
    from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
    from superset.exceptions import SupersetErrorException

    def execute_sql_statements(query_id: int, rendered_query: str, *args: Any, **kwargs: Any) -> Any:
        # Held until all of it was executed: a session forgets a row that nobody holds, and reads it again.
        query = sql_lab.get_query(query_id=query_id)
        database = query.database
        engine = database.db_engine_spec.engine
        refused = session_guard.refusal(rendered_query, engine, read_only=not database.allow_dml)
        if refused:
            kind = SupersetErrorType.DML_NOT_ALLOWED_ERROR
            raise SupersetErrorException(SupersetError(message=refused, error_type=kind, level=ErrorLevel.ERROR))
        return shipped(query_id, rendered_query, *args, **kwargs)

    return execute_sql_statements


def _guard_databases(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def get_extra(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        extra = shipped(self, *args, **kwargs)
        if not (self.allow_dml or self.allow_ctas or self.allow_cvas or self.allow_file_upload):
            params = extra.setdefault("engine_params", {})
            options = params.get("execution_options") or {}
            params["execution_options"] = {**options, READ_ONLY: True}
        return extra

    return get_extra
