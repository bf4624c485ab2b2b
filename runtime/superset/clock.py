"""Times of queries by one clock, the metadata database's: processes compare what others have written.

As shipped (Superset 6.1) each process writes its own clock's time, and a browser that polls for what has changed since the last
change that it saw misses what a slow worker has changed.

Replaces the default and the onupdate of `Query.changed_on`, and listens to SQLAlchemy's event before_flush (read and tested with
Superset 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.environment import versions
from runtime.superset.implementation import NOW

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Columns of a query's row in milliseconds since the epoch, each written when what it is the time of happens.
TIMES = ("start_time", "start_running_time", "end_time")


def install() -> None:
    """Have this process write them so; UntestedVersionError for a Superset of another version."""
    from sqlalchemy import ColumnDefault, event, text
    from superset.extensions import db
    from superset.models.sql_lab import Query

    versions.require(__name__, "apache-superset", "sqlalchemy")
    if event.contains(db.session, "before_flush", by_database):
        return
    changed = Query.__table__.c.changed_on
    for for_update in (False, True):
        default: Any = ColumnDefault(text("timezone('utc', clock_timestamp())"), for_update=for_update)
        default._set_parent_with_dispatch(changed)
    event.listen(db.session, "before_flush", by_database)


def by_database(session: Session, *_: object) -> None:
    """SQLAlchemy's event before_flush: the database writes the times that this process has noted."""
    from sqlalchemy import inspect, text
    from superset.models.sql_lab import Query

    for query in (*session.new, *session.dirty):
        if isinstance(query, Query):
            for name in TIMES:
                state: Any = inspect(query)
                if any(state.attrs[name].history.added or ()):
                    setattr(query, name, text(NOW))
