"""`superset-async query` and its client against the real platform: rows, failures, limits, stopping, results that are gone."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis

from client.errors import QueryFailedError, QueryTimedOutError
from client.superset_client import SupersetClient
from tests.local.conftest import COMMAND, PROJECT, STATEMENT_TIMEOUT, RunningPlatform

pytestmark = pytest.mark.local

#: Hours of counting on any machine.
ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"


def query(platform: RunningPlatform, *arguments: str) -> subprocess.CompletedProcess[str]:
    return platform.run("query", *arguments, "--stack", platform.stack, check=False)


def client_of(platform: RunningPlatform) -> SupersetClient:
    return SupersetClient(platform.url, username=platform.username, password=platform.password_file.read_text().strip())


def statements(platform: RunningPlatform) -> list[psutil.Process]:
    """PostgreSQL's sessions that execute a statement in the sample database."""
    return [
        process for process, line in platform.command_lines.items() if re.search(r"postgres: \S+ examples .* SELECT$", line)
    ]


def eventually(condition: Any, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(met)


ODD = """
SELECT n AS id, CASE n WHEN 1 THEN E'Zoë, 日本\\nline "two"' END AS name, CASE n WHEN 2 THEN '' ELSE 'x' END AS note,
       n / 4.0 AS share, n = 1 AS first, ARRAY[n, NULL] AS list, timestamp '2026-02-03 04:05:06' AS moment,
       9007199254740993 AS big
FROM generate_series(1, 2) AS n
"""
#: Each would be rounded in a double.
WIDE = ("12345678901234567890", "12345678901234567890.123456789", "0.12345678901234567891", "-9007199254740993.5")
WRITTEN = {
    "csv": (
        "id,name,note,share,first,list,moment,big\n"
        '1,"Zoë, 日本\nline ""two""",x,0.25,true,"[1, null]",2026-02-03T04:05:06,9007199254740993\n'
        '2,,"",0.5,false,"[2, null]",2026-02-03T04:05:06,9007199254740993\n'
    ),
    "table": (
        "id | name                  | note | share | first | list      | moment              | big\n"
        "---+-----------------------+------+-------+-------+-----------+---------------------+-----------------\n"
        ' 1 | Zoë, 日本\\nline "two" | x    |  0.25 | true  | [1, null] | 2026-02-03T04:05:06 | 9007199254740993\n'
        " 2 | NULL                  |      |   0.5 | false | [2, null] | 2026-02-03T04:05:06 | 9007199254740993\n"
    ),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_rows_with_odd_values(platform: RunningPlatform, written: str) -> None:
    done = query(platform, ODD, "--format", written)
    assert (done.returncode, done.stdout) == (0, WRITTEN[written])
    # Nothing but its id, since this is no terminal.
    assert re.fullmatch(r"query \d+\n", done.stderr)


def test_rows_as_json_into_a_file_with_a_timeline_and_cut_by_the_limit(platform: RunningPlatform, tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    done = query(platform, ODD, "--format", "json", "--output", str(target), "--limit", "1", "--timeline")
    assert (done.returncode, done.stdout) == (0, "")
    (row,) = json.loads(target.read_text())
    assert list(row) == ["id", "name", "note", "share", "first", "list", "moment", "big"]
    assert row["name"] == 'Zoë, 日本\nline "two"'
    assert "only the first 1 rows, because of --limit" in done.stderr
    line = re.search(r"submitted 0 · queued (\d+) · started (\d+) · finished (\d+) · fetched (\d+) ms", done.stderr)
    assert line
    moments = [int(moment) for moment in line.groups()]
    assert moments == sorted(moments)
    assert moments[-1] < 10_000


@pytest.mark.parametrize("written", ["json", "csv"])
def test_numbers_that_no_double_has_arrive_with_all_their_digits(platform: RunningPlatform, written: str) -> None:
    done = query(platform, f"SELECT {', '.join(f'{digits}::numeric' for digits in WIDE)}", "--format", written)
    found = json.loads(done.stdout)[0].values() if written == "json" else done.stdout.splitlines()[1].split(",")
    assert list(found) == list(WIDE)


def test_what_other_readers_of_json_round_is_text_in_the_rows_that_the_server_gives(platform: RunningPlatform) -> None:
    with client_of(platform) as client:
        run = client.run(
            "SELECT 12345678901234567890::numeric AS a, 12345678901234567890.5 AS b, 0.5 AS c", platform.database_id
        )
        assert run.result.rows == [{"a": "12345678901234567890", "b": "12345678901234567890.5", "c": 0.5}]


def test_failing_sql_tells_the_databases_words(platform: RunningPlatform) -> None:
    done = query(platform, "SELECT * FROM nosuch")
    assert (done.returncode, done.stdout) == (5, "")
    assert 'relation "nosuch" does not exist' in done.stderr
    assert "Traceback" not in done.stderr
    assert query(platform, "SELEC 1").returncode == 5
    assert query(platform, "DELETE FROM orders").returncode == 5


def test_a_statement_beyond_its_limit_times_out_in_time_and_says_why(platform: RunningPlatform) -> None:
    with client_of(platform) as client:
        handle = client.submit(ENDLESS, platform.database_id)
        with pytest.raises(QueryTimedOutError) as caught:
            client.wait(handle)
    status = caught.value.status
    assert status is not None
    assert status.execution_ms is not None
    # The database ended it, long before a worker would have.
    assert STATEMENT_TIMEOUT * 1000 <= status.execution_ms < platform.topology.celery.soft_time_limit_seconds * 1000
    assert f"after {STATEMENT_TIMEOUT}s, its limit" in str(caught.value)
    assert not statements(platform)
    done = query(platform, "results", str(handle.id))
    assert (done.returncode, done.stdout) == (6, "")


def test_ctrl_c_stops_the_query_on_the_server_and_in_the_database(platform: RunningPlatform) -> None:
    command = [COMMAND, "query", ENDLESS, "--stack", platform.stack]
    with subprocess.Popen(
        command, env=platform.environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert eventually(lambda: statements(platform), seconds=60)
        (session,) = statements(platform)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=30)
    assert (running.returncode, stdout) == (130, "")
    told = re.search(r"query (\d+) is stopped on the server", stderr)
    assert told, stderr
    assert eventually(lambda: not session.is_running() or not statements(platform), seconds=STATEMENT_TIMEOUT / 3)
    # The worker has noticed too, and has not written `failed` over it.
    time.sleep(2)
    status = json.loads(query(platform, "status", told[1], "--json").stdout)
    assert status["status"] == "stopped"
    assert status["execution_ms"] < STATEMENT_TIMEOUT * 1000
    done = query(platform, "results", told[1])
    assert done.returncode == 7


def test_the_callers_own_timeout_stops_it_too(platform: RunningPlatform) -> None:
    done = query(platform, ENDLESS, "--timeout", "1")
    assert done.returncode == 6
    assert re.search(r"--timeout is over\nquery \d+ is stopped on the server\n$", done.stderr)
    assert not statements(platform)


def test_status_shows_every_field(platform: RunningPlatform) -> None:
    with client_of(platform) as client:
        run = client.run("SELECT n FROM generate_series(1, 3) AS n", platform.database_id)
    shown = json.loads(query(platform, "status", str(run.status.id), "--json").stdout)
    assert list(shown) == ["id", "status", "sql", "rows", "execution_ms", "queued", "started", "ended", "error"]
    assert (shown["id"], shown["status"], shown["rows"]) == (run.status.id, "success", 3)
    assert shown["sql"] == "SELECT n FROM generate_series(1, 3) AS n"
    assert shown["queued"] < shown["started"] < shown["ended"]
    took = datetime.fromisoformat(shown["ended"]) - datetime.fromisoformat(shown["queued"])
    assert 0 < shown["execution_ms"] <= took / timedelta(milliseconds=1)
    assert query(platform, "status", "999999").returncode == 2


def test_a_result_that_is_gone_is_called_expired(platform: RunningPlatform) -> None:
    with client_of(platform) as client:
        run = client.run("SELECT 1", platform.database_id)
    topology = platform.topology
    where = topology.database("query_results")
    instance = topology.instance(where.instance)
    password = platform.secrets["REDIS_OPERATOR_PASSWORD"]
    with Redis(host=instance.host, port=instance.port, username="operator", password=password, db=where.number) as store:
        assert query(platform, "results", str(run.status.id)).returncode == 0
        assert store.delete(f"{where.prefix}{run.status.results_key}") == 1
    done = query(platform, "results", str(run.status.id))
    assert (done.returncode, done.stdout) == (8, "")
    assert "no longer has its rows" in done.stderr


def test_a_query_that_no_worker_takes_is_reported_and_answered_later(platform: RunningPlatform) -> None:
    # The process that takes messages; its children only execute them.
    worker = psutil.Process(platform.status["processes"]["worker-default"]["pid"])
    worker.suspend()
    try:
        done = query(platform, "SELECT 42 AS answer", "--pending-timeout", "1")
        assert done.returncode == 9
        told = re.search(r"query (\d+) is still pending after 1 s: no worker .* Its queue is '(\S+)'", done.stderr)
        assert told, done.stderr
        assert told[2] == "default"
        unwanted = query(platform, "SELECT 43 AS answer", "--timeout", "1")
        assert unwanted.returncode == 6
        assert re.search(r"query \d+ is stopped on the server\n$", unwanted.stderr), unwanted.stderr
    finally:
        worker.resume()
    done = query(platform, "results", told[1], "--format", "csv")
    assert (done.returncode, done.stdout) == (0, "answer\n42\n")
    (never,) = re.findall(r"query (\d+) is stopped", unwanted.stderr)
    assert query(platform, "results", never).returncode == 7


def test_a_chart_that_fails_or_takes_too_long_says_so(platform: RunningPlatform) -> None:
    def payload(expression: str) -> dict[str, Any]:
        metric = {"expressionType": "SQL", "sqlExpression": expression, "label": "m"}
        return {
            "datasource": {"id": platform.dataset_id, "type": "table"},
            "force": True,
            "queries": [{"columns": [], "metrics": [metric], "row_limit": 1}],
            "result_format": "json",
            "result_type": "full",
        }

    with client_of(platform) as client:
        with pytest.raises(QueryFailedError, match="no_such_column"):
            client.chart_data(payload("max(no_such_column)"))
        began = time.monotonic()
        with pytest.raises(QueryTimedOutError, match=f"after {STATEMENT_TIMEOUT}s, its limit"):
            client.chart_data(payload("max(length(repeat(md5(order_id::text), 100000)))"))
        assert STATEMENT_TIMEOUT <= time.monotonic() - began < platform.topology.celery.soft_time_limit_seconds


def test_a_token_is_as_good_as_a_password_and_a_wrong_one_is_refused(platform: RunningPlatform, tmp_path: Path) -> None:
    password = platform.password_file.read_text().strip()
    credentials = {"username": platform.username, "password": password, "provider": "db"}
    token = httpx.post(f"{platform.url}/api/v1/security/login", json=credentials).json()["access_token"]
    for secret, code in ((token, 0), ("x.y.z", 4)):
        file = tmp_path / "token"
        file.write_text(secret)
        assert query(platform, "SELECT 1", "--token-file", str(file)).returncode == code
    (tmp_path / "password").write_text("wrong")
    assert query(platform, "SELECT 1", "--password-file", str(tmp_path / "password")).returncode == 4
