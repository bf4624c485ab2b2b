"""Which statements may be executed again, by Superset's own parser."""

from __future__ import annotations

import json

import pytest

from tests.runtime.conftest import Prepared, run_script

pytestmark = pytest.mark.superset

#: Whatever the session allows, and only where it lets a function write.
READS = (
    "SELECT 1",
    "SELECT a, count(*) FROM t GROUP BY a ORDER BY 2 LIMIT 5",
    "WITH x AS (SELECT * FROM t) SELECT * FROM x UNION ALL SELECT 1",
    "(SELECT 1)",
    "SELECT date_trunc('day', now()), coalesce(a, 'INSERT INTO t') FROM t -- DELETE",
    "SHOW statement_timeout",
    "EXPLAIN SELECT 1",
    "SELECT 1; SELECT 2",
    "",
)
FUNCTIONS = ("SELECT nextval('s')", "SELECT public.f(1)", "SELECT * FROM t WHERE lo_unlink(1) = 1", "SELECT 1; SELECT f()")
WRITES = (
    "INSERT INTO t VALUES (1)",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "SELECT * INTO u FROM t",
    "CALL p()",
    "EXECUTE plan",
    "COPY t TO '/tmp/x'",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN (ANALYZE) DELETE FROM t",
    "REFRESH MATERIALIZED VIEW v",
    "VACUUM",
    "GRANT ALL ON t TO u",
    "COMMIT",
    "SET default_transaction_read_only = off; SELECT f()",
    "SELECT 1; UPDATE t SET a = 1",
    "no statement at all from from",
)


def test_only_what_is_known_to_read_is_a_read(prepared: Prepared) -> None:
    everything = [*READS, *FUNCTIONS, *WRITES]
    env = prepared.environment("worker")
    answers = run_script("superset.statements_process", env, json.dumps(everything))
    # The first is taken; nobody gets it again, since who took it may have changed it, and no other engine's parser does.
    assert answers.pop("handed over") == [0, 1, 2]
    expected = {sql: [sql not in READS, sql in WRITES] for sql in everything}
    assert {sql: answer[:2] for sql, answer in answers.items()} == expected
    assert answers[WRITES[0]][2] is True
    assert {answers[sql][2] for sql in READS} == {False}


def test_long_sql_is_judged_by_its_session_and_not_parsed(prepared: Prepared) -> None:
    """A read, a write, and what no parser takes."""
    comment = f"/* {'x' * 2**16} */"
    everything = [f"{sql} {comment}" for sql in (READS[0], WRITES[0], WRITES[-1])]
    env = prepared.environment("worker")
    for sql in everything:
        assert run_script("superset.statements_process", env, json.dumps([sql]))[sql] == [True, False, False]
