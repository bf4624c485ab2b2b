"""Whether the role of a database without DML could write, and what to do about it: asked of PostgreSQL by each init job.

The guard of sessions (`runtime.superset.statement_timeout`) keeps them from writing; a role that cannot write needs none.

Leans on `superset.models.core.Database.get_raw_connection` (read and tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from superset.models.core import Database

#: What the role of a session can do beyond reading, a row for each: as PostgreSQL's own catalogs say it (14 and newer).
_ASKED = """
SELECT current_user, 'is a superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL
SELECT current_user, 'is a member of ' || granted FROM unnest(ARRAY['pg_write_all_data', 'pg_write_server_files',
    'pg_execute_server_program']) granted WHERE pg_has_role(current_user, granted, 'MEMBER')
UNION ALL
SELECT current_user, 'can create objects in ' || count(*) || ' schemas, ' || min(nspname) || ' among them'
FROM pg_namespace WHERE nspname !~ '^pg_' AND has_schema_privilege(oid, 'CREATE') HAVING count(*) > 0
UNION ALL
SELECT current_user, 'can change ' || count(*) || ' tables, ' || min(oid::regclass::text) || ' among them'
FROM pg_class WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE') HAVING count(*) > 0
"""


def warning(database: Database) -> str | None:
    """What to tell whoever starts the stack of a database without DML; None where its role cannot write, or is not known to.

    Raises what the driver raises where the database cannot be asked.
    """
    if database.allow_dml or database.db_engine_spec.engine != "postgresql":
        return None
    with database.get_raw_connection() as connection:
        cursor = cast(Any, connection).cursor()
        cursor.execute(_ASKED)
        rows: list[tuple[str, str]] = cursor.fetchall()
    return words(str(database.database_name), rows[0][0], [what for _, what in rows]) if rows else None


def words(name: str, role: str, can: list[str]) -> str:
    """The warning of database `name`, whose `role` has what it `can`."""
    return (
        f"database {name!r} is declared without DML, and its role {role!r} can write: it {', and '.join(can)}. Its sessions are "
        "kept from writing all the same. Better give it a role that cannot write: CREATE ROLE reader LOGIN PASSWORD '…'; "
        "GRANT pg_read_all_data TO reader; and, on a server older than 15, REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    )
