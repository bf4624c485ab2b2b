"""The tables of version 0.1, which made them without migrations: so each statement takes what is there as it is.

Revision: 0001. In `superset_async_executions` times are UTC, `tenant` is empty for queries of no tenant, `attempt` counts from 1,
and `writes` is what the fence decided by: true where the statement may change data.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS superset_async_executions (
        kind text NOT NULL,
        subject text NOT NULL,
        attempt integer NOT NULL,
        task_id text NOT NULL,
        tenant text NOT NULL DEFAULT '',
        queue text NOT NULL,
        username text NOT NULL DEFAULT '',
        database_name text NOT NULL DEFAULT '',
        writes boolean NOT NULL DEFAULT false,
        worker text NOT NULL,
        submitted_at timestamptz,
        started_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz,
        outcome text,
        PRIMARY KEY (kind, subject, attempt)
    )
    """,
    "CREATE INDEX IF NOT EXISTS superset_async_executions_started_at ON superset_async_executions (started_at)",
    """
    CREATE INDEX IF NOT EXISTS superset_async_executions_running ON superset_async_executions (kind, subject)
    WHERE ended_at IS NULL
    """,
    """
    CREATE TABLE IF NOT EXISTS superset_async_messages (
        query_id integer PRIMARY KEY,
        message text NOT NULL,
        sent_at timestamptz NOT NULL DEFAULT now(),
        sent_again boolean NOT NULL DEFAULT false
    )
    """,
    "CREATE TABLE IF NOT EXISTS superset_async_steps (name text PRIMARY KEY, digest text NOT NULL)",
    # For the sweep of open queries, and for the bounds of a user: Superset's own indexes do not help.
    """
    CREATE INDEX IF NOT EXISTS superset_async_open_queries ON query (user_id)
    WHERE status IN ('pending', 'running', 'scheduled', 'fetching')
    """,
)


def upgrade() -> None:
    """Make what is not there."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """There is nothing before it. What the tables hold (cost, open executions) is not dropped unasked."""
    raise NotImplementedError("restore a backup of the metadata database instead")
