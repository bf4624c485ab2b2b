"""What a user can leave in a session of PostgreSQL, and how its next user would find it."""

from __future__ import annotations

#: What is done, and a question whose answer has a row only where it is found.
LEAKS: dict[str, tuple[list[str], str]] = {
    "a setting": (["SET work_mem = '77MB'"], "SELECT 'leaked' WHERE current_setting('work_mem') = '77MB'"),
    "a setting of one's own": (["SET my.secret = 'x'"], "SELECT 'leaked' WHERE current_setting('my.secret', true) <> ''"),
    "search_path": (
        ["SET search_path = pg_temp, public"],
        "SELECT 'leaked' WHERE current_setting('search_path') LIKE '%temp%'",
    ),
    "a time zone": (["SET TIME ZONE 'Asia/Tokyo'"], "SELECT 'leaked' WHERE current_setting('TimeZone') = 'Asia/Tokyo'"),
    # Which the test gives this user.
    "a role": (["SET ROLE pg_monitor"], "SELECT 'leaked' WHERE current_user <> session_user"),
    "a temporary table": (
        ["CREATE TEMP TABLE left_over AS SELECT 1 AS n", "COMMIT"],
        "SELECT 'leaked' WHERE to_regclass('left_over') IS NOT NULL",
    ),
    "a prepared statement": (["PREPARE left_over AS SELECT 1"], "SELECT 'leaked' FROM pg_prepared_statements"),
    "a cursor": (
        ["DECLARE left_over CURSOR WITH HOLD FOR SELECT 1", "COMMIT"],
        "SELECT 'leaked' FROM pg_cursors WHERE name = 'left_over'",
    ),
    "an advisory lock": (
        ["SELECT pg_advisory_lock(4711)"],
        "SELECT 'leaked' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "LISTEN": (["LISTEN left_over", "COMMIT"], "SELECT 'leaked' FROM pg_listening_channels()"),
    "a sequence's value": (
        ["CREATE TEMP SEQUENCE s", "SELECT nextval('s')", "COMMIT"],
        "SELECT 'leaked' WHERE to_regclass('s') IS NOT NULL",
    ),
    "an open transaction": (
        ["BEGIN", "CREATE TABLE left_open (n integer)"],
        "SELECT 'leaked' WHERE to_regclass('left_open') IS NOT NULL",
    ),
    "a failed transaction": (["SELECT 1/0"], "SELECT 'leaked' WHERE false"),
    "a form of dates": (
        ["SET DateStyle = 'SQL, DMY'"],
        "SELECT 'leaked' WHERE current_setting('DateStyle') NOT LIKE 'ISO%'",
    ),
}
