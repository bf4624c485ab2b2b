"""Migrations of this project's own tables in the metadata database, in order, by Alembic.

A change of a table is a new file in `versions`, and its number in `HEAD`; a file that was released is never changed. Superset's
own migrations are apart: each has its table of versions, and Superset's come first, since 0001 adds an index to Superset's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection

#: The newest revision. It is part of the init job's name, so that a new one makes a new job.
HEAD = "0001"
#: Where Alembic keeps which revision the database is at.
VERSION_TABLE = "superset_async_alembic_version"


class UnknownRevisionError(RuntimeError):
    """The database is at a revision that this version does not have; the message is for who operates it."""


def upgrade(connection: Connection) -> str | None:
    """Bring the tables to `HEAD`; the revision that they were at (None: they were not there), or `HEAD` if nothing was done.

    UnknownRevisionError where a newer version made them. The caller commits.
    """
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = _config(connection)
    current = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise UnknownRevisionError(
            f"this project's tables in the metadata database are at revision {current}, and this version knows none after "
            f"{HEAD}: a newer one made them. Run that version's image, or restore a backup from before it"
        )
    if current != HEAD:
        command.upgrade(config, HEAD)
    return current


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
