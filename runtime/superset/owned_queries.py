"""A query is stopped, read and exported by whose it is, or by who may see all queries; and no export executes in the web tier.

As shipped (Superset 6.1) any user who knows a query's client id stops it, and reads its rows where he may use its database; and
an export whose result is gone executes the statement again, in a thread of the web process, without a limit of time: where the
engine commits by itself, an INSERT … RETURNING writes twice. Here the rows come from the stored result. Where that is gone, a
read is executed by a worker, as a new query of who asks, for which the request waits (`runtime.superset.synchronous`); what may
write is never executed again (410).

Replaces `validate` and `run` of `superset.commands.sql_lab.export.SqlResultExportCommand` and of its streaming sibling, and
`validate` of `superset.commands.sql_lab.results.SqlExecutionResultsCommand` (read and tested with Superset 6.1.0; no upstream
issue known).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from runtime.environment import hooks, json_logs, versions
from runtime.superset import principals, stops, synchronous

#: For who asks for rows that are not kept any more, of a query that may write.
GONE = (
    "The result of this query is not kept any more, and an export does not execute again what may write. "
    "Look first at what it has written; then run the query again, and export its result."
)
#: For who asks for rows of a read that could not be kept.
NOT_KEPT = "The result of this query was not kept, nor that of a new execution. Ask for fewer rows."
NOT_YOURS = "This query is another user's. Only its user, or who may see all queries, can read its result."


def install() -> None:
    """Have this web process read and export so; UntestedVersionError for a Superset of another version."""
    from superset.commands.sql_lab.export import SqlResultExportCommand
    from superset.commands.sql_lab.results import SqlExecutionResultsCommand
    from superset.commands.sql_lab.streaming_export_command import StreamingSqlResultExportCommand

    versions.require(__name__)
    for command in (SqlExecutionResultsCommand, SqlResultExportCommand, StreamingSqlResultExportCommand):
        hooks.replace(command, "validate", __name__, _owned)
    hooks.replace(SqlResultExportCommand, "run", __name__, lambda _: _export)
    hooks.replace(StreamingSqlResultExportCommand, "run", __name__, lambda _: _stream)


def _owned(shipped: Callable[[Any], None]) -> Callable[[Any], None]:
    def validate(self: Any) -> None:
        shipped(self)
        json_logs.about(query_id=str(self._query.id))
        if not principals.is_theirs(self._query):
            raise _refused(NOT_YOURS, "QUERY_SECURITY_ACCESS_ERROR", 403)

    return validate


def _refused(message: str, kind: str, status: int) -> Exception:
    from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
    from superset.exceptions import SupersetErrorException

    return SupersetErrorException(SupersetError(message, SupersetErrorType[kind], ErrorLevel.ERROR), status=status)


def _export(command: Any) -> dict[str, Any]:
    """The query, how many rows it has, and their CSV: Superset's `SqlExportResult`."""
    import pandas
    from flask import current_app
    from superset.commands.sql_lab import export
    from superset.utils import core, csv

    command.validate()
    query = command._query
    store, packed = cast(Any, export.results_backend), cast(bool, export.results_backend_use_msgpack)
    kept = store.get(query.results_key) if store and query.results_key else None
    if not kept:
        if stops.may_write_again(query):
            raise _refused(GONE, "RESULTS_BACKEND_ERROR", 410)
        query = synchronous.again(query)
        kept = store.get(query.results_key) if store and query.results_key else None
    if not kept:
        raise _refused(NOT_KEPT, "RESULTS_BACKEND_ERROR", 410)
    rows = export._deserialize_results_payload(core.zlib_decompress(kept, decode=not packed), query, packed)
    names = [column["name"] for column in rows["columns"]]
    frame = pandas.DataFrame(data=rows["data"], dtype=object, columns=names)
    wanted = current_app.config["CSV_EXPORT"]
    text = cast(Any, csv).df_to_escaped_csv(frame, index=False, **wanted)
    return {"query": query, "count": len(frame.index), "data": text.encode(wanted.get("encoding", "utf-8"))}


def _stream(command: Any) -> Callable[[], Any]:
    """The same for a large result, as Superset's view of streams wants it."""
    from superset.commands.sql_lab.export import SqlResultExportCommand

    made = SqlResultExportCommand(client_id=command._client_id).run()
    return lambda: iter([made["data"]])
