"""Statements with which a user would lift a guard of the session that executes them: they are refused in words. Pure.

A refusal here comes before anything runs, and says what to do. It is not what the guard rests on: `runtime.superset` sets limits
and read-only anew, in the database, before each statement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.queries.postgres_text import Token, statements

#: Settings of PostgreSQL by which the platform bounds and recognises every session.
POSTGRES_LIMITS = frozenset(
    {
        "statement_timeout",
        "transaction_timeout",
        "client_connection_check_interval",
        "standard_conforming_strings",
        "application_name",
    }
)
#: What else decides whether a session only reads, and as whom.
POSTGRES_CHARACTERISTICS = frozenset(
    {
        "default_transaction_read_only",
        "transaction_read_only",
        "default_transaction_isolation",
        "transaction_isolation",
        "default_transaction_deferrable",
        "transaction_deferrable",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "session_replication_role",
        "role",
        "session_authorization",
    }
)
#: First words of statements that end a transaction, prepare what is executed later, or run a program of the server's, where a
#: session only reads.
POSTGRES_READ_ONLY = frozenset(
    {
        "begin",
        "start",
        "commit",
        "end",
        "rollback",
        "abort",
        "savepoint",
        "release",
        "prepare",
        "execute",
        "deallocate",
        "do",
        "call",
        "copy",
        "discard",
        "load",
        "listen",
        "unlisten",
        "notify",
    }
)
#: MySQL's and MariaDB's names of the limit, wherever they stand: in SET, in SET STATEMENT … FOR, in a hint or a comment that the
#: server executes. And the function that gives back the lock by which a query is recognised (RELEASE_LOCK gives back one's own).
MYSQL_LOCKS = "release_all_locks"
MYSQL_GUARDED = re.compile(rf"\b(max_execution_time|max_statement_time|{MYSQL_LOCKS})\b", re.IGNORECASE)
#: Engines (as SQLAlchemy names a dialect) for which there is a list.
ENGINES = frozenset({"postgresql", "mysql", "mariadb"})
#: Engines that this project names elsewhere, and that have none: the platform sets no limit in their sessions and does not keep
#: them from writing, so that there is nothing that a statement could lift. Their own roles and limits are all there is.
WITHOUT_LIST = frozenset(
    {
        "awsathena",
        "bigquery",
        "clickhousedb",
        "cockroachdb",
        "crate",
        "databend",
        "databricks",
        "db2",
        "denodo",
        "dremio",
        "drill",
        "druid",
        "duckdb",
        "elasticsearch",
        "exa",
        "firebird",
        "firebolt",
        "gsheets",
        "hana",
        "hive",
        "ibm_db_sa",
        "impala",
        "kylin",
        "mssql",
        "netezza",
        "oracle",
        "pinot",
        "presto",
        "redshift",
        "risingwave",
        "shillelagh",
        "singlestoredb",
        "snowflake",
        "solr",
        "sqlite",
        "starrocks",
        "superset",
        "teradatasql",
        "trino",
        "vertica",
    }
)


def refusal(sql: str, engine: str, *, read_only: bool) -> str | None:
    """Why `sql` is not executed, for its user; None where nothing in it lifts a guard.

    `engine` is SQLAlchemy's name of the dialect; `read_only` where the database does not allow DML.
    """
    if engine not in ENGINES:
        return None
    if engine != "postgresql":
        found = MYSQL_GUARDED.search(sql)
        if found is None:
            return None
        name = found[1].lower()
        return _refused(f"calls {name}" if name == MYSQL_LOCKS else f"changes {name}", read_only=False)
    for statement in statements(sql):
        lifts = _lifts(statement, read_only)
        if lifts:
            return _refused(lifts, read_only=read_only)
    return None


_SERVER = "or give the server's own address in the database's URI."
#: What a user reads whose database is behind a pooler that has no transactions.
STATEMENT_POOLER = (
    "This database is reached through a pooler that ended the connection when a transaction began, as one in statement mode "
    "does: without transactions its sessions can be neither bounded nor kept from writing. An administrator can set pool_mode = "
    f"transaction in the pooler, {_SERVER}"
)


def pooler_refusal(*, autocommit: bool, kept: bool) -> str | None:
    """Why nothing is executed on a connection of PostgreSQL behind a pooler, for its user; None for one that can be served.

    A pooler gives a session to its clients in turn: what is set for more than a transaction meets other applications.
    """
    if autocommit:
        return (
            "This database is reached through a pooler, and each of its statements commits by itself: limits that are set for "
            "them would stay in the pooler's sessions and meet other applications. An administrator can take isolation_level out "
            f"of the database's engine parameters, {_SERVER}"
        )
    if kept:
        return (
            "This database is reached through a pooler, and its connections are kept and reset: behind a pooler that would be "
            "somebody else's session. An administrator can set databases.<name>.keep_connections to false in the stack, "
            f"{_SERVER}"
        )
    return None


def is_single(sql: str) -> bool:
    """Whether PostgreSQL would take `sql` for one statement (or none)."""
    return len(statements(sql)) <= 1


def _refused(lifts: str, *, read_only: bool) -> str:
    rule = (
        "This database is registered without DML, so its sessions only read, and queries cannot change that"
        if read_only
        else "The limits of a session are the platform's, and queries cannot change them"
    )
    way = (
        " To write, use a database that is registered with DML (databases.<name>.allow_dml in the stack)."
        if read_only
        else " An administrator can change a database's limit (databases.<name>.statement_timeout in the stack)."
    )
    return f"This query was not executed: it {lifts}. {rule}.{way}"


def _lifts(statement: Sequence[Token], read_only: bool) -> str | None:
    """What in a statement lifts a guard, as the end of "it …"."""
    first = statement[0].text if statement[0].kind == "word" else ""
    words = [token.text for token in statement if token.kind == "word"]
    if first in ("set", "reset"):
        return _set(statement, read_only)
    if read_only and (first in POSTGRES_READ_ONLY or (first == "explain" and {"execute", "call"} & set(words))):
        return f"has the statement {'EXECUTE' if first == 'explain' else first.upper()}"
    if read_only and any(token.kind == "escaped" for token in statement):
        return 'has a name of the form U&"…", which cannot be read from here'
    return _set_config(statement, read_only)


def _set(statement: Sequence[Token], read_only: bool) -> str | None:
    name = _set_name(statement)
    if name is None:
        return "has SET or RESET in a form that is not known here"
    if name == "all":
        return "changes all settings"
    return f"changes {name}" if name in _guarded(read_only) else None


def _guarded(read_only: bool) -> frozenset[str]:
    return POSTGRES_LIMITS | POSTGRES_CHARACTERISTICS if read_only else POSTGRES_LIMITS


def _set_name(statement: Sequence[Token]) -> str | None:
    """The setting that SET or RESET changes, in lower case; None where it is in no form that is known."""
    rest = list(statement[1:])
    if statement[0].text == "set" and rest and rest[0] in (Token("word", "session"), Token("word", "local")):
        form = [token.text for token in rest[:2]]
        if form == ["session", "characteristics"]:
            return "transaction_read_only"
        if form == ["session", "authorization"]:
            return "session_authorization"
        rest = rest[1:]
    if not rest or rest[0].kind not in ("word", "name"):
        return None
    name = rest[0].text.lower()
    # SET TRANSACTION and SET CONSTRAINTS have no equals sign; SET TIME ZONE is SET timezone. RESET SESSION AUTHORIZATION.
    special = {"transaction": "transaction_read_only", "time": "timezone", "session": "session_authorization"}
    return special.get(name, name)


def _set_config(statement: Sequence[Token], read_only: bool) -> str | None:
    for place, token in enumerate(statement[:-1]):
        if token.kind not in ("word", "name") or token.text.lower() != "set_config":
            continue
        if statement[place + 1] != Token("sign", "("):
            continue
        named = statement[place + 2] if place + 2 < len(statement) else None
        followed = statement[place + 3] if place + 3 < len(statement) else None
        plain = named is not None and named.kind == "string" and followed == Token("sign", ",")
        if read_only or named is None or not plain:
            return "calls set_config"
        if named.text.lower() in _guarded(read_only):
            return f"changes {named.text.lower()} by set_config"
    return None
