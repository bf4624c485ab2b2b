"""The audit trail: who did what, as records that the process which writes them cannot change or take back.

A record is a line (`runtime.environment.audit_records`) on this process's stdout, to which nothing else is logged: logs go to
stderr. Stdout is a pipe, so what was written is out of the process's reach at once, and whoever reads the pipe (the container
runtime, this machine's supervisor) keeps it. A record is written before the answer; where it cannot be, the answer is an error.

No record has the text of a statement unless the stack asks for it (`superset.audit_sql`), and none has a secret of the process's
environment.
"""

from __future__ import annotations

import os
import socket
import uuid
from datetime import UTC, datetime
from functools import cache
from typing import Literal

from runtime.environment import audit_records, json_logs, process_topology
from runtime.environment.audit_records import Value
from topology.commands import ROLE_ENV

#: Where records go.
STDOUT = 1

#: What became of it: it was done, it was refused, or it failed.
Outcome = Literal["ok", "refused", "failed"]


def outcome_of(status: int) -> Outcome:
    """The outcome that an HTTP status says: 503 is the refusal of a broker that is away."""
    if status < 400:
        return "ok"
    return "refused" if status < 500 or status == 503 else "failed"


def is_kept() -> bool:
    """Whether the stack has a trail."""
    return process_topology.started().superset.audit


def write(action: str, outcome: Outcome, **about: Value) -> None:
    """Write a record, where the stack has a trail; what is None or empty of `about` is left out. OSError where stdout takes none.

    `time` is UTC, in ISO 8601 with milliseconds.
    """
    if not is_kept():
        return
    record: dict[str, Value] = {
        audit_records.VERSION_KEY: audit_records.VERSION,
        "id": uuid.uuid4().hex,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "action": action,
        "outcome": outcome,
        "process": os.environ.get(ROLE_ENV, ""),
        "host": socket.gethostname(),
        **{name: _hidden(value) for name, value in about.items() if value not in (None, "", [])},
    }
    for line in audit_records.lines(record):
        os.write(STDOUT, line)


def _hidden(value: Value) -> Value:
    if isinstance(value, list):
        return [_format().without_secrets(each) for each in value]
    return _format().without_secrets(value) if isinstance(value, str) else value


@cache
def _format() -> json_logs.Formatter:
    return json_logs.formatter()
