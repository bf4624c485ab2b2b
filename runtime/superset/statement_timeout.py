"""Every connection to an analytic database gets a statement timeout: the database itself ends what takes too long.

A task's soft limit cannot interrupt a driver that waits for its server, and the hard limit kills the process and leaves the
statement running; a timeout in the database ends both, with an error that reaches the user.

Superset's setting DB_CONNECTION_MUTATOR; leans on the classes of connections and cursors of psycopg2 (read and tested with
Superset 6.1.0 and psycopg2 2.9.9; no upstream issue known).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from runtime.queries import abandoned_charts, session_guard, transient_errors
from runtime.queries.final_states import ENDED_BY_DATABASE
from topology.model import Tenant

if TYPE_CHECKING:
    from psycopg2 import extensions
    from sqlalchemy.engine import URL

#: Execution option of a database's engine (Superset: engine_params) that says this database's own limit, in seconds.
OPTION = "statement_timeout_seconds"
#: Execution option that says that sessions only read. Superset refuses the statements that it knows to write where a database
#: does not allow them, and lets pass CALL, EXECUTE, COPY, SELECT … INTO, EXPLAIN (ANALYZE) and functions: PostgreSQL does not.
READ_ONLY = "read_only"
#: Execution option that says that a worker's child keeps its connection (`runtime.superset.kept_connections`).
KEEP = "keep_connections"
#: How often a PostgreSQL server (14 and newer) looks, while it executes a statement, whether its client is still there.
CLIENT_CHECK = "5s"


def engine_params(seconds: int, *, read_only: bool = False, keep: bool = False) -> dict[str, object]:
    """`engine_params` of a registered database that has a limit of its own, sessions that only read, and kept connections."""
    return {
        "execution_options": {OPTION: seconds, **({READ_ONLY: True} if read_only else {}), **({KEEP: True} if keep else {})}
    }


def is_read_only(uri: str, extra: str | None) -> bool:
    """Whether the sessions of a registered database are kept read-only, from its columns `sqlalchemy_uri` and `extra`."""
    if uri.partition(":")[0] not in ("postgresql", "postgresql+psycopg2"):
        return False
    try:
        return _read_only(cast("dict[str, Any]", json.loads(extra or "{}").get("engine_params") or {}))
    except (ValueError, AttributeError):
        return False


def _option(params: dict[str, Any], name: str) -> object:
    return cast("dict[str, Any]", params.get("execution_options") or {}).get(name)


def _read_only(params: dict[str, Any]) -> bool:
    return _option(params, READ_ONLY) is True


@dataclass(frozen=True)
class StatementTimeout:
    """Superset's DB_CONNECTION_MUTATOR. `default_seconds` for a database without a limit, `most_seconds` for any.

    `working_for` says which tenant's work this process does: its limits are in the place of both. `request_seconds` says how long
    a statement may take in the request at work, where that is one of the web tier: no limit here is longer.
    """

    default_seconds: int
    most_seconds: int
    working_for: Callable[[], Tenant | None] = field(default=lambda: None, repr=False)
    request_seconds: Callable[[], int | None] = field(default=lambda: None, repr=False)

    def __call__(self, uri: URL, params: dict[str, Any], *_: object) -> tuple[URL, dict[str, Any]]:
        """The connection's URL and engine parameters, with the limit in them where the engine has one."""
        tenant = self.working_for()
        of_request = self.request_seconds()
        seconds, strictest, advice = self.seconds(params, tenant), self._strictest(tenant), ADVICE
        if of_request is not None:
            advice = advice if seconds <= of_request else REQUEST_ADVICE
            seconds, strictest = min(seconds, of_request), min(strictest, of_request)
        connect_args: dict[str, Any] = dict(params.get("connect_args") or {})
        if uri.get_backend_name() == "postgresql" and uri.get_driver_name() == "psycopg2":
            kept = _option(params, KEEP) is True
            connection = _postgres_connection(seconds, strictest, _read_only(params), kept, advice)
            connect_args.setdefault("connection_factory", connection)
        elif uri.get_backend_name() in ("mysql", "mariadb") and "init_command" not in connect_args:
            connect_args["init_command"] = mysql_command(seconds)
        return uri, {**params, "connect_args": connect_args}

    def seconds(self, params: dict[str, Any], tenant: Tenant | None = None) -> int:
        """The limit of a database whose engine has `params`, for `tenant`.

        The database's own where it is one and a task can wait that long; a tenant's that differs from the stack's is never
        exceeded.
        """
        default = tenant.statement_timeout_seconds if tenant else self.default_seconds
        most = tenant.soft_time_limit_seconds if tenant else self.most_seconds
        if default != self.default_seconds:
            most = min(most, default)
        own = _option(params, OPTION)
        return own if isinstance(own, int) and 0 < own <= most else min(default, most)

    def _strictest(self, tenant: Tenant | None) -> int:
        """Beyond so many seconds the server's own setting does not stand."""
        if tenant is None:
            return self.most_seconds
        own = tenant.statement_timeout_seconds
        return min(tenant.soft_time_limit_seconds, own if own != self.default_seconds else tenant.soft_time_limit_seconds)


def mysql_command(seconds: int) -> str:
    """The statement that limits a session of MySQL (milliseconds, SELECT only) or of MariaDB (seconds, all statements).

    One text serves both: each server executes the comment that is meant for it.
    """
    return f"SET /*!50708 SESSION max_execution_time={seconds * 1000} */ /*M!100101 SESSION max_statement_time={seconds} */"


#: What to do about a statement that was ended by its database's own limit, and by that of a request.
ADVICE = "An administrator can raise the database's statement_timeout in the stack."
REQUEST_ADVICE = (
    "This is the limit of what a request of the web tier executes itself; a chart that was loaded before, and a query of SQL "
    "Lab, are not executed there. An administrator can raise SQLLAB_TIMEOUT in the stack (superset.settings)."
)


def ended_message(limit: str, advice: str = ADVICE) -> str:
    """What a user reads when the database ended a statement after `limit`, as PostgreSQL writes it ("530s")."""
    return (
        f"{ENDED_BY_DATABASE} after {limit}, its limit (statement timeout). Read less at once: filter, "
        f"aggregate, or query an indexed column. {advice}"
    )


@lru_cache(maxsize=1024)
def _postgres_connection(
    seconds: int, most_seconds: int, read_only: bool, kept: bool = False, advice: str = ADVICE
) -> type[extensions.connection]:
    """A psycopg2 connection class whose statements have the limit, end with their client, and only read where that is said.

    All of that is set for one transaction, and anew before each statement: what a statement changes holds for no other one, and
    behind a pooler in transaction mode nothing of it meets another client. A transaction that only reads has then taken its
    snapshot, after which PostgreSQL itself refuses to let it write. The server's own limit (of the role, the database or the
    connection's options) stays where it is stricter than `most_seconds`.

    Behind a pooler, which is recognised by the number of the server's process being another than the one that the connection was
    told, a connection that is `kept` or commits by itself executes nothing: psycopg2's NotSupportedError says what to declare.
    """
    import psycopg2
    from psycopg2 import extensions

    class Cursor(extensions.cursor):
        def execute(self, query: Any, vars: Any = None) -> None:
            if isinstance(query, str):
                refuse(query)
            connection = cast("Connection", self.connection)
            connection.guard()
            abandoned_charts.executes(connection.cancel)
            try:
                extensions.cursor.execute(self, query, vars)
            except psycopg2.errors.QueryCanceled as error:
                # The same class is raised when a user stops the query.
                if "statement timeout" not in str(error):
                    raise
                raise psycopg2.errors.QueryCanceled(ended_message(connection.limit, advice)) from error
            except psycopg2.OperationalError as error:
                if self.connection.closed:
                    transient_errors.met(error)
                raise

    def refuse(query: str) -> None:
        """Raise before the server sees it: an error of the kind that a lack of privilege has."""
        refused = session_guard.refusal(query, "postgresql", read_only=read_only)
        if refused is None and read_only and not session_guard.is_single(query):
            refused = "This query was not executed: PostgreSQL would take one of its statements for several."
        if refused:
            raise psycopg2.errors.InsufficientPrivilege(refused)

    class Connection(extensions.connection):
        limit = f"{seconds}s"
        #: Whether a pooler is between it and its server.
        pooled = False
        #: By which the query that it executes is recognised from outside (`runtime.superset.cancelling`).
        tag = ""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            extensions.connection.__init__(self, *args, **kwargs)
            self._milliseconds, self._client_check = str(seconds * 1000), CLIENT_CHECK
            try:
                self._ask()
            except psycopg2.OperationalError as error:
                # Where the pooler has no transactions, it says nothing but ends the connection that begins one.
                if not (self.pooled and self.closed):
                    raise
                raise psycopg2.NotSupportedError(session_guard.STATEMENT_POOLER) from error
            self.cursor_factory = Cursor

        def _ask(self) -> None:
            """Which limit the server has of its own, and whether it can look for its client."""
            with extensions.connection.cursor(self, cursor_factory=extensions.cursor) as cursor:
                # Outside of a transaction: a pooler may have none.
                self.autocommit = True
                cursor.execute(
                    "SELECT reset_val::bigint, pg_backend_pid() FROM pg_settings WHERE name = 'statement_timeout'"
                )
                own, pid = cast("tuple[int, int]", cursor.fetchone())
                self.pooled = pid != self.info.backend_pid
                self.autocommit = False
                if 1 <= own <= most_seconds * 1000:
                    self._milliseconds = str(own)
                try:
                    cursor.execute("SELECT set_config('client_connection_check_interval', %s, true)", (CLIENT_CHECK,))
                except psycopg2.errors.InvalidParameterValue:
                    # A server whose operating system cannot look.
                    self._client_check = "0"
                    self.rollback()
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", (self._milliseconds,))
                cursor.execute("SHOW statement_timeout")
                (self.limit,) = cast("tuple[str]", cursor.fetchone())
            self.rollback()

        def guard(self) -> None:
            """Set the limits of the next statement, in its transaction; for good where each statement is one of its own."""
            unserved = session_guard.pooler_refusal(autocommit=self.autocommit, kept=kept) if self.pooled else None
            if unserved:
                raise psycopg2.NotSupportedError(unserved)
            status = self.info.transaction_status
            if status == extensions.TRANSACTION_STATUS_INERROR:
                # The server executes nothing until the transaction has ended.
                return
            with extensions.connection.cursor(self, cursor_factory=extensions.cursor) as cursor:
                if status == extensions.TRANSACTION_STATUS_IDLE and self.status == extensions.STATUS_BEGIN:
                    # The user's own COMMIT: psycopg2 believes that the transaction goes on, and the server has none.
                    cursor.execute("BEGIN")
                local = not self.autocommit
                settings = {
                    "statement_timeout": self._milliseconds,
                    "client_connection_check_interval": self._client_check,
                    "standard_conforming_strings": "on",
                    **({"application_name": self.tag} if self.tag else {}),
                    **({"transaction_read_only" if local else "default_transaction_read_only": "on"} if read_only else {}),
                }
                asked = ", ".join("set_config(%s, %s, %s)" for _ in settings)
                cursor.execute(f"SELECT {asked}", [part for pair in settings.items() for part in (*pair, local)])

    return Connection
