"""Errors of a connection to an analytic database that pass by themselves, and the way out of a task that met one.

Superset 6.1 catches every exception of a query and writes `failed`; what leaves its code here is no `Exception`, so that the
one who wrapped the task decides. Only while a wrapped task that only reads has attempts left (`retrying`) does anything leave
this way; everywhere else the driver's error does.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

#: Whether this task may be run again; None outside of a worker's task.
_retrying: ContextVar[bool | None] = ContextVar("retrying", default=None)

#: What libpq and PostgreSQL say, in English whatever the server's language is (libpq's own) or in the server's own words of
#: errors before a session exists. Wrong passwords, databases and certificates are not among them.
POSTGRES = (
    "connection refused",
    "connection reset by peer",
    "connection timed out",
    "timeout expired",
    "could not connect to server",
    "could not receive data from server",
    "could not send data to server",
    "server closed the connection unexpectedly",
    "connection already closed",
    "no route to host",
    "network is unreachable",
    "temporary failure in name resolution",
    "ssl syscall error",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "too many clients already",
    "remaining connection slots are reserved",
    "too many connections for role",
    "too many connections for database",
    "terminating connection due to administrator command",
    "terminating connection because of crash of another server process",
)
#: MySQL and MariaDB: cannot connect (2002, 2003), gone away and lost (2006, 2013), too many connections (1040, 1203),
#: shutting down (1053).
MYSQL = frozenset({1040, 1053, 1203, 2002, 2003, 2006, 2013})


class TryAgain(BaseException):
    """A read met a transient error: whoever wrapped the task runs it again later. The cause is the driver's error."""


class UnwrittenEndError(BaseException):
    """The metadata database was lost while a statement ran that is not to be run again: whoever wrapped the task says so."""


@contextmanager
def retrying(allowed: bool) -> Generator[None]:
    """Whether a transient error in the block leaves it as `TryAgain`."""
    token = _retrying.set(allowed)
    try:
        yield
    finally:
        _retrying.reset(token)


def is_transient(error: BaseException) -> bool:
    """Whether `error`, a driver's, says that the server could not be reached, or was lost, and may be back in a moment."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    driver = type(error).__module__.partition(".")[0]
    if driver == "psycopg2" and type(error).__name__ in (
        "OperationalError",
        "InterfaceError",
        "AdminShutdown",
        "CrashShutdown",
    ):
        text = str(error).lower()
        return any(sign in text for sign in POSTGRES)
    if driver in ("MySQLdb", "pymysql", "mysql"):
        number = getattr(error, "errno", None) or (error.args[0] if error.args else None)
        return number in MYSQL
    return False


def met(error: BaseException) -> None:
    """Leave by `TryAgain` where the error is transient and the task may be run again; else return."""
    if is_transient(error):
        again(error)


def again(error: BaseException) -> None:
    """Leave by `TryAgain` where the task may be run again, of an error that is known to pass by itself; else return."""
    if _retrying.get():
        raise TryAgain from error


def end_unwritten(error: BaseException) -> None:
    """Leave by `TryAgain`, or by `UnwrittenEndError` where the task is not to be run again; return outside of a worker's task."""
    again(error)
    if _retrying.get() is not None:
        raise UnwrittenEndError from error


def at_work() -> bool:
    """Whether a transient error would leave as `TryAgain` now."""
    return bool(_retrying.get())
