"""Whether the role of a database without DML could write, and what to do about it: asked of PostgreSQL by each init job.

The guard of sessions (`runtime.superset.statement_timeout`) keeps them from writing; a role that cannot write needs none.

Leans on `superset.models.core.Database.get_raw_connection` (read and tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from superset.models.core import Database

#: What the role of a session can do beyond reading, a row for each: as PostgreSQL's own catalogs say it (14 and newer). What it
#: has by any way counts: granted to itself, to everybody or to a role that it is in, on a table or on a column.
ASKED = """
WITH ours AS (SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
SELECT current_user, 'is a superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL
SELECT current_user, 'is a member of ' || granted FROM unnest(ARRAY['pg_write_all_data', 'pg_write_server_files',
    'pg_execute_server_program']) granted WHERE pg_has_role(current_user, granted, 'MEMBER')
UNION ALL
SELECT current_user, 'can create objects in ' || count(*) || ' schemas, ' || min(nspname) || ' among them'
FROM pg_namespace WHERE nspname !~ '^pg_' AND has_schema_privilege(oid, 'CREATE') HAVING count(*) > 0
UNION ALL
SELECT current_user, 'can create schemas' WHERE has_database_privilege(current_database(), 'CREATE')
UNION ALL
SELECT current_user, 'can change ' || count(*) || ' tables, ' || min(oid::regclass::text) || ' among them'
FROM ours WHERE relkind IN ('r', 'p', 'f', 'v', 'm')
    AND (has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(oid, 'INSERT, UPDATE'))
HAVING count(*) > 0
UNION ALL
SELECT current_user, 'can move ' || count(*) || ' sequences, ' || min(oid::regclass::text) || ' among them'
FROM ours WHERE CASE WHEN relkind = 'S' THEN has_sequence_privilege(oid, 'USAGE, UPDATE') ELSE false END HAVING count(*) > 0
UNION ALL
SELECT current_user,
    'can execute ' || count(*) || ' functions as their owners, ' || min(p.oid::regprocedure::text) || ' among them'
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prosecdef AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND p.proowner <> current_user::regrole
    AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') HAVING count(*) > 0
UNION ALL
SELECT current_user, 'can become ' || count(*) || ' roles, ' || min(rolname) || ' among them' FROM pg_roles
WHERE pg_has_role(current_user, oid, 'MEMBER') AND NOT pg_has_role(current_user, oid, 'USAGE')
    AND rolname !~ '^pg_' HAVING count(*) > 0
UNION ALL
SELECT current_user, what FROM pg_roles,
    LATERAL (VALUES (rolcreaterole, 'can create roles'), (rolcreatedb, 'can create databases')) AS has(it, what)
WHERE rolname = current_user AND it AND NOT rolsuper
"""


def warning(database: Database) -> str | None:
    """What to tell whoever starts the stack of a database without DML; None where its role cannot write, or is not known to.

    Raises what the driver raises where the database cannot be asked.
    """
    if database.allow_dml or database.db_engine_spec.engine != "postgresql":
        return None
    with database.get_raw_connection() as connection:
        cursor = cast(Any, connection).cursor()
        cursor.execute(ASKED)
        rows: list[tuple[str, str]] = cursor.fetchall()
    return words(str(database.database_name), rows[0][0], [what for _, what in rows]) if rows else None


def words(name: str, role: str, can: list[str]) -> str:
    """The warning of database `name`, whose `role` has what it `can`."""
    return (
        f"database {name!r} is declared without DML, and its role {role!r} can write: it {', and '.join(can)}. Its sessions are "
        "kept from writing all the same. Better give it a role that cannot write: CREATE ROLE reader LOGIN PASSWORD '…'; "
        "GRANT pg_read_all_data TO reader; and, on a server older than 15, REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    )
