"""What Alembic executes to migrate: on the connection that it is given, and in that connection's transaction."""

from __future__ import annotations

from alembic import context

from runtime.queries.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
