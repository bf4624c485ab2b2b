"""The table of executions: one row for each time that a worker began a query, the same for SQL Lab and charts.

It is the fence (a second delivery finds the first one's row), and what usage and cost are reported from. Rows live in the
metadata database, so they survive Redis; beat prunes them with Superset's own old queries.
"""

from __future__ import annotations

from typing import Literal

TABLE = "superset_async_executions"

#: sql: a query of SQL Lab, `subject` is its id. chart: a chart's asynchronous job, `subject` is the job's id.
Kind = Literal["sql", "chart"]
#: None (NULL) while it runs. `lost`: its worker or message was gone, and it was not finished. `retried`: another attempt follows.
Outcome = Literal["success", "failed", "stopped", "timed_out", "lost", "refused", "retried"]

#: Times are UTC. `tenant` is empty for queries of no tenant. `attempt` counts from 1. `writes` is what the fence decided by:
#: true where the statement may change data.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
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
);
CREATE INDEX IF NOT EXISTS {TABLE}_started_at ON {TABLE} (started_at);
CREATE INDEX IF NOT EXISTS {TABLE}_running ON {TABLE} (kind, subject) WHERE ended_at IS NULL;
"""
