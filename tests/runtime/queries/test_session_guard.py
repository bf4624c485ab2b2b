"""Which statements a user may not execute because they would lift a guard, and how text is split into statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.queries.postgres_text import Token, statements
from runtime.queries.session_guard import is_single, refusal

#: Refused where the database has no DML, each with what the message must name.
LIFTS_READ_ONLY = [
    ("SET default_transaction_read_only=off; COMMIT; SELECT 3 AS x INTO t", "default_transaction_read_only"),
    ("COMMIT; BEGIN READ WRITE; SELECT 1 AS a INTO t; COMMIT; SELECT 1", "COMMIT"),
    ("PREPARE d AS DELETE FROM t; EXECUTE d", "PREPARE"),
    ("EXECUTE d", "EXECUTE"),
    ("EXPLAIN ANALYZE EXECUTE d", "EXECUTE"),
    ("SELECT set_config('transaction_read_only', 'off', false)", "set_config"),
    ("SELECT pg_catalog.\"set_config\"($$work_mem$$, '1', false)", "set_config"),
    ("SELECT U&\"set\\005fconfig\"('a', 'b', true)", "U&"),
    ("START TRANSACTION READ WRITE", "START"),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "transaction_read_only"),
    ("SET TRANSACTION READ WRITE", "transaction_read_only"),
    ("set local Transaction_Read_Only to off", "transaction_read_only"),
    ('SET "transaction_read_only" = off', "transaction_read_only"),
    ("SET ROLE writer", "role"),
    ("SET SESSION AUTHORIZATION writer", "session_authorization"),
    ("RESET ALL", "all settings"),
    ("DISCARD ALL", "DISCARD"),
    ("DO $$ BEGIN DELETE FROM t; END $$", "DO"),
    ("CALL p()", "CALL"),
    ("COPY (SELECT 1) TO PROGRAM 'sh'", "COPY"),
    ("SELECT 1; -- one\n/* two /* three */ */ ABORT", "ABORT"),
    ("SELECT '\\'; COMMIT; --'", "COMMIT"),
    ("SELECT E'\\\\'; COMMIT; --'", "COMMIT"),
    ("SAVEPOINT a", "SAVEPOINT"),
]
#: Refused wherever the session has a limit.
LIFTS_A_LIMIT = [
    ("SET statement_timeout=0; SELECT wait_seconds(600)", "statement_timeout"),
    ("SET LOCAL statement_timeout TO DEFAULT", "statement_timeout"),
    ("RESET statement_timeout", "statement_timeout"),
    ("SET client_connection_check_interval = 0", "client_connection_check_interval"),
    ("SELECT 1, set_config('statement_timeout', '0', false)", "statement_timeout"),
    ("SELECT set_config('statement' || '_timeout', '0', false)", "set_config"),
    ("SELECT set_config(E'statement\\x5ftimeout', '0', false)", "set_config"),
    ("RESET ALL", "all settings"),
    ("SET standard_conforming_strings = off", "standard_conforming_strings"),
]
#: What everyone may do.
HARMLESS = [
    "SELECT 'COMMIT; SET statement_timeout=0'",
    "SELECT $a$ ; commit ; $a$",
    "SELECT E'\\'; COMMIT; --'",
    "SELECT 1 /* ; COMMIT /* ; */ SET statement_timeout=0 */",
    "SET search_path = public",
    "SET TIME ZONE 'UTC'",
    "RESET search_path",
    'SELECT "commit", statement_timeout FROM t WHERE "set_config" = 1',
    "SHOW statement_timeout",
    "EXPLAIN ANALYZE SELECT 1",
    "WITH a AS (SELECT 1) SELECT * FROM a;",
    "",
]


@pytest.mark.parametrize(("sql", "named"), LIFTS_READ_ONLY)
def test_what_would_let_a_session_write_is_refused_where_there_is_no_dml(sql: str, named: str) -> None:
    refused = refusal(sql, "postgresql", read_only=True)
    assert refused is not None and named in refused and "allow_dml" in refused


@pytest.mark.parametrize(("sql", "named"), LIFTS_A_LIMIT)
@pytest.mark.parametrize("read_only", [True, False])
def test_what_would_change_a_limit_is_refused_everywhere(sql: str, named: str, read_only: bool) -> None:
    refused = refusal(sql, "postgresql", read_only=read_only)
    assert refused is not None and (named in refused or (read_only and "set_config" in refused))


@pytest.mark.parametrize("sql", HARMLESS)
@pytest.mark.parametrize("read_only", [True, False])
def test_what_lifts_nothing_is_executed(sql: str, read_only: bool) -> None:
    assert refusal(sql, "postgresql", read_only=read_only) is None


@pytest.mark.parametrize(
    "sql", ["BEGIN; COMMIT", "DO $$ BEGIN END $$", "CALL p()", "COPY t FROM STDIN", "SET ROLE x", "SET lock_timeout = 1"]
)
def test_a_database_with_dml_keeps_its_statements(sql: str) -> None:
    assert refusal(sql, "postgresql", read_only=False) is None


@pytest.mark.parametrize(
    ("sql", "refused"),
    [
        ("SET SESSION max_execution_time = 0", True),
        ("SET STATEMENT max_statement_time=0 FOR SELECT sleep(600)", True),
        ("SELECT /*+ MAX_EXECUTION_TIME(0) */ sleep(600)", True),
        ("SELECT 1 /*!50708 , @@session.max_execution_time */", True),
        ("SELECT RELEASE_ALL_LOCKS()", True),
        ("SELECT RELEASE_LOCK('own')", False),
        ("SET NAMES utf8mb4", False),
        ("SELECT max_time FROM t", False),
    ],
)
@pytest.mark.parametrize("engine", ["mysql", "mariadb"])
def test_mysql_and_mariadb_have_a_list_of_their_own(engine: str, sql: str, refused: bool) -> None:
    assert (refusal(sql, engine, read_only=False) is not None) is refused


def test_engines_in_which_no_limit_is_set_have_none() -> None:
    assert refusal("SET statement_timeout=0", "trino", read_only=True) is None


#: Statements whose end nobody can mistake, and constants that hold what looks like one.
_CONSTANTS = st.sampled_from(
    ["'a;b'", "'it''s; COMMIT'", "E'\\'; x'", '"a;b"', "$$;$$", "$q$ $$;' $q$", "/*;/*;*/;*/1", "--;\n1"]
)


@given(st.lists(st.lists(_CONSTANTS, min_size=1, max_size=4), min_size=1, max_size=5))
def test_semicolons_in_constants_and_comments_end_no_statement(parts: list[list[str]]) -> None:
    text = "; ".join("SELECT " + ", ".join(constants) for constants in parts)
    assert len(statements(text)) == len(parts)
    assert is_single(text) is (len(parts) == 1)


@given(st.text())
def test_any_text_is_split_without_losing_its_end(text: str) -> None:
    """A constant that does not end is no text in which anything could hide: its sign stands for itself."""
    tokens = [token for statement in statements(f"{text}\n;marker") for token in statement]
    hidden = any(opening in text for opening in ("/*", "'", '"', "$"))
    assert hidden or Token("word", "marker") in tokens
