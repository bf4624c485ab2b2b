"""What the init job has done, by name, so that a later run can leave it out, and so that others can wait for it."""

from __future__ import annotations

from runtime.environment.metadata_database import Connection

#: One row for each step, with the digest of its input.
STEPS_TABLE = "superset_async_steps"


class InitError(RuntimeError):
    """Why the metadata database could not be made ready, for the person who reads the job's log."""


def done(connection: Connection, step: str) -> str | None:
    """The digest with which `step` was done; None where it was not. The caller commits."""
    row = connection.exec_driver_sql(f"SELECT digest FROM {STEPS_TABLE} WHERE name = %s", (step,)).fetchone()
    return str(row[0]) if row else None


def record(connection: Connection, step: str, digest: str) -> None:
    """Write down that `step` was done. The caller commits."""
    connection.exec_driver_sql(
        f"INSERT INTO {STEPS_TABLE} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET digest = excluded.digest",
        (step, digest),
    )
