"""Superset's action log: what people did is written before they are answered, the rest in batches.

As shipped (Superset 6.1) each poll of a browser, and each step of a worker's task, writes a row in a transaction of its own.
Here what says who did what is written as shipped. Polls, how long a step of a request took, and what a worker does (the request
that asked for it is written already) go to a thread of the process, which writes them every `EVERY_SECONDS`. A process that is
killed loses what it had not written: the events of its last `EVERY_SECONDS`, and never more than `batches.MOST`, which is also
what is held while the metadata database is away; what is dropped is counted in the log.

A logger of a team's own (EVENT_LOGGER) is left alone.

Superset's setting EVENT_LOGGER; leans on `DBEventLogger` and the table logs (read and tested with 6.1.0; no upstream issue
known). Imported only inside Superset, while it reads its configuration.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from superset.utils import json
from superset.utils.log import DBEventLogger

from runtime.environment import versions
from runtime.environment.batches import Batches
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


#: Between two batches.
EVERY_SECONDS = 1.0
#: Actions of a web process that are polls, or parts of a request that has a row of its own.
LATER = frozenset(
    {
        "QueryRestApi.get",
        "QueryRestApi.get_updated_since",
        "events",
        "execute_sql",
        "load_into_dataframe",
        "QueryObject.post_processing",
        "ChartDataRestApi.json_dumps",
        "_get_data_response",
    }
)


class EventLogger(DBEventLogger):
    """Superset's logger, with what may be written later left to `batches`."""

    def log(  # noqa: PLR0917 - as its base class has it
        self,
        user_id: int | None,
        action: str,
        dashboard_id: int | None,
        duration_ms: int | None,
        slice_id: int | None,
        referrer: str | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Superset's `log`: one row for each record."""
        records = cast("list[dict[str, Any]]", kwargs.get("records") or [])
        if not (records and _engine and is_written_later(action)):
            DBEventLogger.log(self, user_id, action, dashboard_id, duration_ms, slice_id, referrer, *args, **kwargs)
            return
        batches.add(
            [
                {
                    "action": action,
                    "json": _json(record),
                    "dashboard_id": dashboard_id or record.get("dashboard_id"),
                    "slice_id": slice_id or record.get("slice_id"),
                    "duration_ms": duration_ms,
                    "referrer": referrer,
                    "user_id": user_id,
                    "dttm": datetime.now(UTC).replace(tzinfo=None),
                }
                for record in records
            ]
        )


def is_written_later(action: str) -> bool:
    """Whether an event of this process is one that nobody has to find before the answer."""
    return action in LATER or os.environ.get(ROLE_ENV) == "worker"


def _json(record: dict[str, Any]) -> str | None:
    try:
        return json.dumps(record)
    except Exception:
        return None


def _write(rows: Sequence[dict[str, Any]]) -> None:
    from superset.models.core import Log

    with _engine[0].begin() as connection:
        connection.execute(cast(Any, Log).__table__.insert().inline(), list(rows))


#: The metadata database's engine, once `install` was called: its pool is a process's own after a fork.
_engine: list[Engine] = []
#: This process's.
batches = Batches("events of the action log", _write, EVERY_SECONDS)
os.register_at_fork(after_in_child=batches.forget)
atexit.register(batches.flush)


def install() -> None:
    """Have batches of this process written by its Superset; UntestedVersionError for one of another version."""
    from superset.extensions import db

    versions.require(__name__)
    _engine[:] = [db.engine]
