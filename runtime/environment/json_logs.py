"""One log format for every process: a line is a JSON object with `time`, `level`, `logger`, `message`, and what is known of
what it is about: `query_id`, `task_id`, `tenant`, `user`, `duration` in seconds, and the `trace_id` where the stack is traced.

No line has the text of a statement, unless the stack asks for it (`superset.log_sql`), and none has a secret of the process's
environment.

Leans on the arguments of Celery's lines of tasks and of gunicorn's access log (read and tested with Celery 5.6.3 and gunicorn 23;
no upstream issue known).
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, cast

from pythonjsonlogger.json import JsonFormatter

#: What a line may be about.
FIELDS = ("query_id", "task_id", "tenant", "user", "duration", "trace_id")
#: In place of a statement's text, and of a secret.
HIDDEN_SQL, HIDDEN_SECRET = "[SQL not shown]", "[secret]"
#: Names of variables that hold secrets. Shorter values are words that stand in any text.
SECRET_NAMES = re.compile(r"PASSWORD|SECRET|MESSAGE_KEY|DATABASE_URI|TOKEN")
SHORTEST_SECRET = 8
#: How libraries tell of a statement: SQLAlchemy's and PostgreSQL's errors.
SQL_PARTS = re.compile(
    r"\[SQL: .*?\](?=\n|$)|\[parameters: .*?\](?=\n|$)|^LINE \d+: .*?$(\n\s*\^\s*$)?", re.DOTALL | re.MULTILINE
)
#: Lines of Superset's whose first argument is a statement.
SQL_FIRST = frozenset({"Query %s on schema %s failed"})
#: A line of a statement that is shorter stands in other texts too.
SHORTEST_LINE = 8

#: Told what lines are about, each time that it is said; and who gives the id of the trace that this thread is in, empty for none.
#: Both are empty where nothing is traced.
listeners: list[Callable[[Mapping[str, object]], None]] = []
trace_ids: list[Callable[[], str]] = []

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))
_statement: ContextVar[str] = ContextVar("statement", default="")


def about(*, statement: str | None = None, **known: object) -> None:
    """Say what lines of this thread are about from now on, `FIELDS` by name; `statement` is a text that none of them may have."""
    _about.set({**_about.get(), **{name: value for name, value in known.items() if value not in (None, "")}})
    if statement is not None:
        _statement.set(statement)
    for listener in listeners:
        listener(_about.get())


def known() -> Mapping[str, object]:
    """What lines of this thread are about now."""
    found = next((trace_id for each in trace_ids if (trace_id := each())), None)
    return {**_about.get(), "trace_id": found} if found else _about.get()


def forget() -> None:
    """Lines of this thread are about nothing in particular from now on."""
    _about.set({})
    _statement.set("")


class Formatter(JsonFormatter):
    """The format. `secrets` are values that no line may have; `show_sql`: statements stay in lines."""

    def __init__(self, secrets: Iterable[str] = (), *, show_sql: bool = False) -> None:
        super().__init__("%(message)s")
        self._secrets = sorted({value for value in secrets if len(value) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._show_sql = show_sql

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Hide what must not be told, in the message and in tracebacks."""
        return {key: self._hidden(value) if isinstance(value, str) else value for key, value in log_data.items()}

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """The fields in their order."""
        if not self._show_sql and record.msg in SQL_FIRST and isinstance(record.args, tuple) and record.args:
            record = logging.makeLogRecord({**record.__dict__, "args": (HIDDEN_SQL, *record.args[1:])})
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        arguments: Mapping[str, Any] = cast("Mapping[str, Any]", record.args) if isinstance(record.args, Mapping) else {}
        if record.name == "gunicorn.access":
            log_data |= _access(arguments)
            return
        found = {**known(), **_of_celery(record.name, arguments)}
        log_data.update({name: found[name] for name in FIELDS if name in found})
        for key in ("exc_info", "stack_info"):
            if message_dict.get(key):
                log_data[key] = message_dict[key]

    def without_secrets(self, text: str) -> str:
        """The text without the process's secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN_SECRET)
        return text

    def _hidden(self, text: str) -> str:
        text = self.without_secrets(text)
        if self._show_sql:
            return text
        text = SQL_PARTS.sub(HIDDEN_SQL, text)
        for part in (_statement.get(), *_statement.get().splitlines()):
            if len(part.strip()) >= SHORTEST_LINE:
                text = text.replace(part.strip(), HIDDEN_SQL)
        return text


def _of_celery(logger: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if not logger.startswith("celery."):
        return {}
    runtime = arguments.get("runtime")
    found = {"task_id": arguments.get("id"), "duration": None if runtime is None else round(float(runtime), 3)}
    return {name: value for name, value in found.items() if value is not None}


#: Variables of a request's environment in which the application says who asked, about which query, and in which trace.
USER, QUERY, TRACE = "superset_async.user", "superset_async.query_id", "superset_async.trace_id"


def _access(atoms: Mapping[str, Any]) -> dict[str, Any]:
    """Of gunicorn's atoms: no query string, which may have what somebody asked for."""
    said = {
        "query_id": atoms.get(f"{{{QUERY}}}e"),
        "user": atoms.get(f"{{{USER}}}e"),
        "trace_id": atoms.get(f"{{{TRACE}}}e"),
        "duration": round(int(atoms.get("D", 0)) / 1e6, 3),
        "method": atoms.get("m"),
        "path": atoms.get("U"),
        "status": int(atoms.get("s", 0)),
        "address": atoms.get("h"),
    }
    return {name: value for name, value in said.items() if value not in (None, "-", "")}


def formatter(*, show_sql: bool = False) -> Formatter:
    """The format of this process, with the secrets of its environment."""
    return Formatter((value for name, value in os.environ.items() if SECRET_NAMES.search(name)), show_sql=show_sql)


def install(*, show_sql: bool = False) -> None:
    """Have this process's root logger write this format to stderr; Celery and Superset find that and leave it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(show_sql=show_sql))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    from billiard.util import get_logger
    from celery import signals

    signals.setup_logging.connect(_leave, weak=False)
    # That of a worker's children keeps its lines to itself, and Celery makes it anew: without a handler of its own, what became
    # of a child that was killed would be plain text.
    get_logger().handlers[:] = [handler]


def _leave(**_: Any) -> None:
    """A receiver of this signal is all that Celery asks for."""


def gunicorn_config(*, show_sql: bool = False) -> dict[str, Any]:
    """gunicorn's `logconfig_dict`: its own lines, and its access log, in the same format."""
    own = {"level": "INFO", "handlers": ["json"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": formatter, "show_sql": show_sql}},
        "handlers": {"json": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": "INFO", "handlers": ["json"]},
        "loggers": {"gunicorn.error": own, "gunicorn.access": own},
    }
