"""The local platform as its users meet it: up, killed in parts, down, up again; real services and real HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from client.superset_client import SupersetClient
from local import first_queries, health, postgres
from local.state import StateFolder
from local.supervision import Supervisor, leftovers
from runtime.superset.sample import DASHBOARD_SLUG
from tests.local.conftest import PROJECT, RunningPlatform, up, write_stack
from tests.monitoring.test_runbook_commands import ALERTS, blocks
from tests.waiting import until

pytestmark = pytest.mark.local


def client_of(platform: RunningPlatform) -> SupersetClient:
    return SupersetClient(platform.url, username=platform.username, password=platform.password_file.read_text().strip())


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until(condition, seconds, "the condition comes true", pause=0.2)


def states_of(platform: RunningPlatform) -> dict[str, dict[str, Any]]:
    return platform.status["processes"]


def test_status_tells_a_program_what_it_needs(platform: RunningPlatform) -> None:
    known = platform.status
    assert known["state"] == "running"
    assert set(known["processes"]) == {"web", "worker-default", "beat", "exporter", "redis", "postgres"}
    assert {process["state"] for process in known["processes"].values()} == {"RUNNING"}
    assert set(known["ports"]) == {"web", "redis", "postgres", "exporter"}
    metrics = httpx.get(f"http://127.0.0.1:{known['ports']['exporter']}/metrics").text
    assert 'celery_queue_depth{queue_name="default"} 0.0' in metrics
    assert httpx.get(f"{known['url']}/health").text == "OK"
    assert known["database_id"] > 0
    assert known["dataset_id"] > 0


def test_what_up_prints_off_a_terminal_has_no_password_and_says_how_to_stop(platform: RunningPlatform) -> None:
    (said,) = platform.said
    assert platform.secrets["ADMIN_PASSWORD"] not in said
    assert f"password file: {platform.password_file}" in said
    assert f"stop it: make down STACK={platform.stack}" in said
    assert "can write" not in said


def test_status_asks_the_web_tier_and_the_disk(platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web tier that is there and does not answer, and a full disk."""
    web = psutil.Process(states_of(platform)["web"]["pid"])
    found = [web, *web.children(recursive=True)]
    for process in found:
        process.suspend()
    try:
        done = platform.run("status", "--stack", platform.stack, check=False)
    finally:
        for process in found:
            process.resume()
    assert done.returncode == 4
    assert "degraded" in done.stdout and "the web tier does not answer at" in done.stdout
    wait_for(lambda: platform.status["state"] == "running", 120)
    usage = shutil.disk_usage(platform.state_dir)._replace(free=100 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (problem,) = health.problems(platform.topology, platform.secrets, StateFolder(platform.state_dir))
    assert "is full (100 MiB free)" in problem


def test_up_goes_on_where_the_administrators_password_was_changed_in_superset(platform: RunningPlatform) -> None:
    before = platform.password_file.read_text()
    platform.password_file.write_text("of-another-day\n")
    try:
        done = platform.run("up", "--stack", platform.stack)
    finally:
        platform.password_file.write_text(before)
    assert "the password of 'admin' was changed in Superset" in done.stdout


def test_the_samples_charts_can_be_computed_without_their_page(platform: RunningPlatform) -> None:
    """By the query context that each has, as warm-up, annotations and API clients do; and the dataset is found in its catalog."""
    with client_of(platform) as client:
        session = client._session  # pyright: ignore[reportPrivateUsage]
        # Those of its dashboard: other tests have charts of their own.
        charts = session.call("GET", f"/api/v1/dashboard/{DASHBOARD_SLUG}/charts").json()["result"]
        assert len(charts) == 4
        for chart in charts:
            answer = session.call("PUT", "/api/v1/chart/warm_up_cache", body={"chart_id": chart["id"]})
            (result,) = answer.json()["result"]
            assert result["viz_error"] is None, (chart["slice_name"], result)
        dataset = session.call("GET", f"/api/v1/dataset/{platform.dataset_id}").json()["result"]
    assert dataset["catalog"] == "examples"


def test_a_query_is_executed_by_a_worker_on_a_million_rows(platform: RunningPlatform) -> None:
    with client_of(platform) as client:
        run = client.run(first_queries.SQL, platform.database_id)
    assert sum(row["orders"] for row in run.result.rows) == 1_200_000
    log = (platform.state_dir / "logs/worker-default.log").read_text()
    assert "sql_lab.get_sql_results" in log


def test_a_cold_chart_is_queued_and_a_warm_one_is_not(platform: RunningPlatform) -> None:
    payload = first_queries.chart_payload(platform.dataset_id)
    with client_of(platform) as client:
        cold = client.chart_data(payload)
        warm = client.chart_data(payload | {"force": False})
    assert cold.job_id is not None
    assert warm.cached
    assert cold.queries[0]["data"] == warm.queries[0]["data"]
    assert len(cold.queries[0]["data"]) == 8


def test_everything_listens_on_loopback_only(platform: RunningPlatform) -> None:
    ours = {process.pid for process in platform.processes}
    listening = [
        connection.laddr
        for connection in psutil.net_connections("inet")
        if connection.pid in ours and connection.laddr and connection.status == psutil.CONN_LISTEN
    ]
    assert {address.port for address in listening} == set(platform.status["ports"].values())
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_no_secret_is_in_a_command_line_or_a_readable_file(platform: RunningPlatform) -> None:
    secrets = set(platform.secrets.values())
    assert len(secrets) >= 6
    lines = platform.command_lines.values()
    assert len(lines) >= len(states_of(platform))
    for arguments in lines:
        assert not any(secret in arguments for secret in secrets)
    exposed: list[Path] = []
    for path in platform.state_dir.rglob("*"):
        if not path.is_file() or path.is_relative_to(platform.state_dir / "postgres"):
            continue
        content = path.read_text(errors="replace")
        if any(secret in content for secret in secrets) and stat.S_IMODE(path.stat().st_mode) & 0o077:
            exposed.append(path)
    assert exposed == []


def test_a_second_up_changes_nothing(platform: RunningPlatform) -> None:
    before = {name: process["pid"] for name, process in states_of(platform).items()}
    done = platform.run("up", "--stack", platform.stack)
    assert "already running" in done.stdout
    assert "shown this once" not in done.stdout
    assert {name: process["pid"] for name, process in states_of(platform).items()} == before


def test_the_runbooks_commands_for_this_machine_do_what_they_say(platform: RunningPlatform) -> None:
    """As they stand in the page, but for the stack's name, its port and its folder."""
    lines = blocks(ALERTS, "sh here")
    assert len(lines) >= 5
    here = {
        "STACK=local": f"STACK={platform.stack}",
        "127.0.0.1:9808": f"127.0.0.1:{platform.topology.exporter.port}",
        ".state/local": str(platform.state_dir),
    }
    for line in lines:
        command = line
        for written, ours in here.items():
            command = command.replace(written, ours)
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", command],
            env={**os.environ, **platform.environment},
            cwd=PROJECT,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_a_killed_worker_comes_back_and_answers(platform: RunningPlatform) -> None:
    killed = states_of(platform)["worker-default"]["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: states_of(platform)["worker-default"]["pid"] not in (0, killed))
    with client_of(platform) as client:
        run = client.run("SELECT 41 + 1 AS answer", platform.database_id)
    assert run.result.rows == [{"answer": 42}]


def test_a_fresh_web_process_answers_concurrent_first_queries(platform: RunningPlatform) -> None:
    before = states_of(platform)["web"]["pid"]
    os.kill(before, signal.SIGTERM)
    wait_for(lambda: states_of(platform)["web"]["pid"] not in (0, before))
    platform.run("up", "--stack", platform.stack)
    clients = [client_of(platform) for _ in range(6)]
    for client in clients:
        client.login()

    def first(numbered: tuple[int, SupersetClient]) -> list[dict[str, Any]]:
        number, client = numbered
        return client.run(f"SELECT {number} AS n", platform.database_id).result.rows

    with ThreadPoolExecutor(len(clients)) as threads:
        answers = list(threads.map(first, enumerate(clients)))
    assert answers == [[{"n": number}] for number in range(6)]


def test_a_query_that_waits_survives_down_and_up(platform: RunningPlatform) -> None:
    password = platform.password_file.read_text()
    Supervisor(StateFolder(platform.state_dir)).stop_process("worker-default")
    wait_for(lambda: states_of(platform)["worker-default"]["pid"] == 0, 120)
    with client_of(platform) as client:
        waiting = client.submit("SELECT 'kept' AS word", platform.database_id)
        assert client.status(waiting.id).state.value == "pending"
    platform.run("down", "--stack", platform.stack)
    assert platform.processes == []
    assert platform.status["state"] == "stopped"
    platform.run("up", "--stack", platform.stack)
    with client_of(platform) as client:
        assert client.results(client.wait(waiting)).rows == [{"word": "kept"}]
    assert platform.password_file.read_text() == password


def test_up_recovers_from_a_supervisor_that_was_killed(platform: RunningPlatform) -> None:
    pid = int((platform.state_dir / "supervisord.pid").read_text())
    orphans = {process.pid for process in platform.processes} - {pid}
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid))
    assert platform.status["state"] == "degraded"
    done = platform.run("up", "--stack", platform.stack)
    assert "an earlier run left" in done.stdout
    assert not orphans & {process.pid for process in platform.processes}
    with client_of(platform) as client:
        assert client.run("SELECT count(*) AS n FROM orders", platform.database_id).result.rows == [{"n": 1_200_000}]


def test_a_stack_file_with_five_mistakes_gives_five_messages_and_starts_nothing(tmp_path: Path) -> None:
    environment = write_stack(
        tmp_path,
        "wrong",
        workres={},
        web={"threads": "many"},
        redis={"broker": {"maxmemory_policy": "allkeys-lru"}},
        images={"redis": "valkey/valkey:latest"},
        celery={"queues": ["default", "reports"]},
    )
    done = RunningPlatform("wrong", environment, tmp_path / "state/wrong").run("up", "--stack", "wrong", check=False)
    assert done.returncode == 1
    assert "has 5 problems" in done.stderr
    for key in ("workres", "web.threads", "redis.broker.maxmemory_policy", "images.redis", "celery.queues"):
        assert f"{key} = " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_busy_port_is_one_error_that_names_the_key_and_the_holder(tmp_path: Path) -> None:
    environment = write_stack(tmp_path, "busy")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        environment = write_stack(tmp_path, "busy", local={"web_port": port})
        done = RunningPlatform("busy", environment, tmp_path / "state/busy").run("up", "--stack", "busy", check=False)
    assert done.returncode == 1
    assert f"port {port} of web is in use" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert "superset-async:local.web_port" in done.stderr
    assert leftovers(StateFolder(tmp_path / "state/busy")) == []


def test_a_stack_for_a_cluster_is_refused_here(tmp_path: Path) -> None:
    environment = write_stack(tmp_path, "cloud", platform="kubernetes", databases={})
    done = RunningPlatform("cloud", environment, tmp_path / "state/cloud").run("up", "--stack", "cloud", check=False)
    assert done.returncode == 1
    assert "does not run on this machine" in done.stderr


@pytest.mark.parametrize(
    ("added", "says"),
    [
        ([], "say so in images.drivers: [clickhouse-connect]"),
        (["clickhouse-connect"], "Install it: "),
    ],
)
def test_a_database_whose_driver_is_missing_is_refused_with_its_package(tmp_path: Path, added: list[str], says: str) -> None:
    """Neither declared nor there; declared and not there."""
    databases = {"events": {"uri": "clickhousedb://reader@events.example.com/events"}}
    environment = write_stack(tmp_path, "driven", databases=databases, images={"drivers": added})
    done = RunningPlatform("driven", environment, tmp_path / "state/driven").run("up", "--stack", "driven", check=False)
    assert done.returncode == 1
    assert "clickhousedb://" in done.stderr
    assert "clickhouse-connect" in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(StateFolder(tmp_path / "state/driven")) == []


@pytest.mark.further
def test_up_sees_that_the_program_has_changed_and_runs_the_new_one(tmp_path: Path) -> None:
    """On a copy of the project, as somebody has it who updates it."""
    project = tmp_path / "project"
    left = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "bench", "*.egg-info")
    shutil.copytree(PROJECT, project, ignore=left)
    (project / ".venv-superset").symlink_to(PROJECT / ".venv-superset")
    environment = write_stack(tmp_path, "updated", databases={}) | {"PYTHONPATH": str(project)}
    marker = "of the next version"
    with up(tmp_path, "updated", environment) as running:
        before = {process["pid"] for process in states_of(running).values()}
        assert marker not in httpx.get(f"{running.url}/login/", timeout=60).text
        page = project / "runtime/superset/page.py"
        page.write_text(page.read_text().replace('SCRIPT = """', f'SCRIPT = """/* {marker} */'))
        status = running.status
        assert status["state"] == "degraded"
        assert any("the program" in problem and "make up" in problem for problem in status["problems"]), status["problems"]
        # Nobody can then say what is still running.
        Supervisor(StateFolder(running.state_dir)).stop_process("redis")
        done = running.run("up", "--stack", "updated", timeout=600)
        assert "the program changed since it was started: starting anew" in done.stdout
        assert before.isdisjoint(process["pid"] for process in states_of(running).values())
        assert marker in httpx.get(f"{running.url}/login/", timeout=60).text
        assert running.status["state"] == "running"


def test_cost_of_a_young_platform_is_counted_from_its_first_query(platform: RunningPlatform) -> None:
    """By the executions in its metadata database: neither the day that was asked for, nor a month."""
    with client_of(platform) as client:
        client.run("SELECT 1", platform.database_id)
    server = platform.topology.postgres
    asked = "SELECT extract(epoch FROM min(started_at)) FROM superset_async_executions"
    first = float(
        postgres.run_sql(platform.topology, server.user, platform.secrets[server.password_env], server.database, asked)
    )
    before = time.time()
    report = json.loads(platform.run("cost", "--stack", platform.stack, "--format", "json").stdout)
    after = time.time()
    assert report["hours"] == 24
    assert before - first <= report["counted_hours"] * 3600 <= after - first
    rates = platform.topology.rates
    assert report["total"]["redis_cost"] == pytest.approx(rates.redis_hour * report["counted_hours"])
    assert report["total"]["queries"] > 0
    for row in report["rows"]:
        assert row["month_projected"] is None
        assert row["month_to_date"] == pytest.approx(row["cost"])
    assert "the first one began" in platform.run("cost", "--stack", platform.stack).stderr


def test_an_unknown_stack_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    environment = write_stack(tmp_path, "production")
    done = RunningPlatform("prodution", environment, tmp_path).run("up", "--stack", "prodution", check=False)
    assert done.returncode == 1
    assert "Did you mean 'production'?" in done.stderr


def test_clean_asks_first_and_then_leaves_nothing(tmp_path: Path) -> None:
    environment = write_stack(tmp_path, "gone")
    folder = StateFolder(tmp_path / "state/gone")
    folder.make()
    folder.topology.write_text(json.dumps({}))
    here = RunningPlatform("gone", environment, folder.root)
    assert here.run("clean", "--stack", "gone", check=False).returncode != 0
    assert folder.root.exists()
    here.run("clean", "--stack", "gone", "--yes")
    assert not folder.root.exists()
