"""What is said of a query that was executed and whose result could not be stored: storing comes after the commit.

As shipped (Superset 6.1) such a query is `failed` with the error of the store, address included, also where its statement was
committed: whoever runs it again writes twice. Here a statement that was committed says so, and a read is tried again.

Replaces `superset.sql_lab.execute_sql_statements` (read and tested with Superset 6.1.0; no upstream issue known).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from runtime.environment import hooks, versions
from runtime.queries import query_tasks, transient_errors
from runtime.superset.sql_parser import commits, may_write
from runtime.superset.statement_timeout import is_read_only

if TYPE_CHECKING:
    from superset.exceptions import SupersetErrorException

logger = logging.getLogger(__name__)


def install() -> None:
    """Have this process say it; UntestedVersionError for a Superset of another version."""
    from superset import sql_lab

    versions.require(__name__)
    hooks.replace(sql_lab, "execute_sql_statements", __name__, _kept_or_said)


def _kept_or_said(shipped: Callable[..., Any]) -> Callable[..., Any]:
    from superset.errors import SupersetErrorType
    from superset.exceptions import SupersetErrorException

    not_kept = (SupersetErrorType.RESULT_TOO_LARGE_ERROR, SupersetErrorType.RESULTS_BACKEND_ERROR)

    def execute_sql_statements(query_id: int, rendered_query: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return shipped(query_id, rendered_query, *args, **kwargs)
        except SupersetErrorException as error:
            if error.error.error_type not in not_kept:
                raise
            logger.warning("query %s was executed, and its result was not kept: %s", query_id, error.__cause__ or error)
            raise _said(query_id, rendered_query, error) from error

    return execute_sql_statements


def _said(query_id: int, sql: str, error: SupersetErrorException) -> Exception:
    """The error for the user of a query that was executed; leaves by `TryAgain` where it may be tried again."""
    from superset import sql_lab
    from superset.errors import SupersetError, SupersetErrorType
    from superset.exceptions import SupersetErrorException
    from superset.extensions import db

    # What is not yet written of its end holds its row.
    db.session.rollback()
    query = sql_lab.get_query(query_id=query_id)
    database = query.database
    engine = database.db_engine_spec.engine
    if query.select_as_cta or commits(sql, engine):
        message = query_tasks.COMMITTED_NOT_KEPT
    elif may_write(
        sql, engine, read_only_session=is_read_only(str(database.sqlalchemy_uri), cast("str | None", database.extra))
    ):
        message = query_tasks.EXECUTED_NOT_KEPT
    else:
        if error.error.error_type == SupersetErrorType.RESULTS_BACKEND_ERROR:
            db.session.rollback()
            transient_errors.again(error)
        return error
    return SupersetErrorException(SupersetError(message, SupersetErrorType.RESULTS_BACKEND_ERROR, error.error.level))
