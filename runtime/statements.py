"""Every connection to an analytic database gets a statement timeout: the database itself ends what takes too long.

A task's soft limit cannot interrupt a driver that waits for its server, and the hard limit kills the process and leaves the
statement running; a timeout in the database ends both, with an error that reaches the user.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

#: Execution option of a database's engine (Superset: engine_params) that says this database's own limit, in seconds.
OPTION = "statement_timeout_seconds"

#: Superset stops a query by ending its session, and writes `stopped` only after that. A task whose session was ended waits
#: this long before it reads the state, else it would often write `failed` over it.
STOP_SECONDS = 1.0


def engine_params(seconds: int) -> dict[str, object]:
    """`engine_params` of a registered database that has a limit of its own."""
    return {"execution_options": {OPTION: seconds}}


@dataclass(frozen=True)
class StatementTimeout:
    """Superset's DB_CONNECTION_MUTATOR. `default_seconds` for a database without a limit, `most_seconds` for any."""

    default_seconds: int
    most_seconds: int

    def __call__(self, uri: Any, params: dict[str, Any], *_: object) -> tuple[Any, dict[str, Any]]:
        """The connection's URL and engine parameters, with the limit in them where the engine has one."""
        seconds = self.seconds(params)
        connect_args: dict[str, Any] = dict(params.get("connect_args") or {})
        if uri.get_backend_name() == "postgresql" and uri.get_driver_name() == "psycopg2":
            connect_args.setdefault("connection_factory", _postgres_connection(seconds, self.most_seconds))
        elif uri.get_backend_name() in ("mysql", "mariadb") and "init_command" not in connect_args:
            connect_args["init_command"] = mysql_command(seconds)
        return uri, {**params, "connect_args": connect_args}

    def seconds(self, params: dict[str, Any]) -> int:
        """The limit of a database whose engine has `params`: its own where it is one and a task can wait that long."""
        own = cast("dict[str, Any]", params.get("execution_options") or {}).get(OPTION)
        return own if isinstance(own, int) and 0 < own <= self.most_seconds else self.default_seconds


def mysql_command(seconds: int) -> str:
    """The statement that limits a session of MySQL (milliseconds, SELECT only) or of MariaDB (seconds, all statements).

    One text serves both: each server executes the comment that is meant for it.
    """
    return f"SET /*!50708 SESSION max_execution_time={seconds * 1000} */ /*M!100101 SESSION max_statement_time={seconds} */"


def ended_message(limit: str) -> str:
    """What a user reads when the database ended a statement after `limit`, as PostgreSQL writes it ("530s")."""
    return (
        f"The database ended this statement after {limit}, its limit (statement timeout). Read less at once: filter, "
        "aggregate, or query an indexed column. An administrator can raise the database's statement_timeout in the stack."
    )


@lru_cache(maxsize=64)
def _postgres_connection(seconds: int, most_seconds: int) -> type[Any]:
    """A psycopg2 connection class whose sessions have the limit.

    The server's own setting (of the role, the database or the connection's options) stays where it is stricter than
    `most_seconds`. It is set after connecting, not as a start-up option, because PgBouncer refuses those.
    """
    psycopg2 = cast(Any, import_module("psycopg2"))
    extensions = cast(Any, import_module("psycopg2.extensions"))

    class Cursor(extensions.cursor):  # pyright: ignore[reportUntypedBaseClass]
        def execute(self, *args: Any, **kwargs: Any) -> None:
            try:
                extensions.cursor.execute(self, *args, **kwargs)
            except psycopg2.errors.QueryCanceled as error:
                # The same class is raised when a user stops the query.
                if "statement timeout" not in str(error):
                    raise
                raise psycopg2.errors.QueryCanceled(ended_message(self.connection.limit)) from error
            except psycopg2.OperationalError:
                if self.connection.closed:
                    time.sleep(STOP_SECONDS)
                raise

    class Connection(extensions.connection):  # pyright: ignore[reportUntypedBaseClass]
        limit = f"{seconds}s"

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            extensions.connection.__init__(self, *args, **kwargs)
            with self.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('statement_timeout', CASE WHEN setting::bigint BETWEEN 1 AND %s THEN setting "
                    "ELSE %s END, false) FROM pg_settings WHERE name = 'statement_timeout'",
                    (most_seconds * 1000, str(seconds * 1000)),
                )
                self.limit = cursor.fetchone()[0]
            self.commit()
            self.cursor_factory = Cursor

    return Connection
