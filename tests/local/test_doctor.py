"""`superset-async doctor` on the real platform: each fault is caused for real, and what mends it takes the finding away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from redis import Redis, RedisError

from client.errors import QueryFailedError
from client.states import QueryHandle, State
from client.superset_client import SupersetClient
from local import binaries, postgres
from local.processes import superset_environment
from local.state import REDIS_OPERATOR_PASSWORD, StateFolder
from local.supervision import Supervisor
from runtime.broker.reserved_tasks import DEATHS
from runtime.environment.coordination import REAPED_AT
from runtime.observability.diagnosis import IDENTICAL
from tests.local.conftest import PROJECT, RunningPlatform
from tests.local.test_query_e2e import ENDLESS, client_of
from tests.waiting import until
from topology import commands

pytestmark = pytest.mark.local

#: Patience for a state that comes by itself.
SECONDS = 240
MIB = 2**20


@pytest.fixture
def client(platform: RunningPlatform) -> Iterator[SupersetClient]:
    with client_of(platform) as client:
        yield client


@pytest.fixture
def redis(platform: RunningPlatform) -> Iterator[Redis]:
    with Redis(
        port=platform.topology.redis[0].port, username="operator", password=platform.secrets[REDIS_OPERATOR_PASSWORD]
    ) as client:
        yield client


@pytest.fixture
def supervisor(platform: RunningPlatform) -> Supervisor:
    return Supervisor(StateFolder(platform.state_dir))


@pytest.fixture(autouse=True)
def healthy(platform: RunningPlatform, redis: Redis) -> Generator[None]:
    """Nothing is wrong when a test begins; what one has caused is forgotten when it ends."""
    forget(platform, redis)
    is_healthy(platform)
    yield
    forget(platform, redis)


def forget(platform: RunningPlatform, redis: Redis) -> None:
    """Workers and executions that died are told of for an hour."""
    coordination = platform.topology.database("coordination")
    redis.execute_command("SELECT", coordination.number)
    redis.delete(f"{coordination.prefix}{DEATHS}")
    redis.execute_command("SELECT", 0)
    sql(platform, "DELETE FROM superset_async_executions WHERE outcome = 'lost'")


def doctor(platform: RunningPlatform) -> dict[str, dict[str, Any]]:
    """The findings by their id; the exit code says how severe the worst is."""
    done = platform.run("doctor", "--json", "--stack", platform.stack, check=False)
    assert done.returncode in (0, 13, 14), done.stderr
    findings = json.loads(done.stdout)["findings"]
    severities = {each["severity"] for each in findings}
    assert done.returncode == (14 if "critical" in severities else 13 if severities else 0), done.stdout
    found = {each["id"]: each for each in findings}
    shown = os.environ.get("DOCTOR_SAYS")
    if shown and found:
        said = platform.run("doctor", "--stack", platform.stack, check=False).stdout
        with Path(shown).open("a") as file:
            file.write(f"{os.environ.get('PYTEST_CURRENT_TEST')}\n{said}\n")
    return found


def is_healthy(platform: RunningPlatform) -> None:
    """Return as soon as nothing is found; AssertionError with what still is."""
    found: dict[str, dict[str, Any]] = {}

    def nothing() -> bool:
        found.clear()
        found.update(doctor(platform))
        return not found

    try:
        until(nothing, SECONDS, "the platform is healthy")
    except AssertionError as late:
        raise AssertionError(f"{late}: {found}") from None


def diagnosed(platform: RunningPlatform, id: str) -> dict[str, Any]:
    """The finding of this id, as soon as there is one."""
    until(lambda: id in doctor(platform), SECONDS, id, pause=0.5)
    return doctor(platform)[id]


def sql(platform: RunningPlatform, script: str) -> str:
    server = platform.topology.postgres
    return postgres.run_sql(platform.topology, server.user, platform.secrets[server.password_env], server.database, script)


def worker_pid(supervisor: Supervisor) -> int:
    return next(each.pid for each in supervisor.states() if each.name == "worker-default")


def name_of(platform: RunningPlatform) -> str:
    return json.loads(platform.run("worker", "list", "-f", "json", "--stack", platform.stack).stdout)[0]["worker"]


def running(client: SupersetClient, query: QueryHandle) -> None:
    until(lambda: client.status(query.id).state is State.RUNNING, SECONDS, "the query runs")


@contextmanager
def drained(platform: RunningPlatform) -> Generator[str]:
    """The worker takes nothing while the block runs; its name."""
    name = name_of(platform)
    platform.run("worker", "drain", name, "--wait", "--stack", platform.stack)
    try:
        yield name
    finally:
        platform.run("worker", "resume", name, "--stack", platform.stack)


def test_a_healthy_platform_that_works_has_no_finding(platform: RunningPlatform, client: SupersetClient) -> None:
    for number in range(5):
        client.submit(f"SELECT {number} AS n", platform.database_id)
    done = platform.run("doctor", "--stack", platform.stack)
    assert done.stdout == "nothing is wrong\n"


def test_no_worker(platform: RunningPlatform, supervisor: Supervisor, client: SupersetClient) -> None:
    supervisor.stop_process("worker-default")
    try:
        until(lambda: "no-worker" in doctor(platform), SECONDS, "no worker lives")
        waits = client.submit("SELECT 1", platform.database_id)
        found = diagnosed(platform, "no-worker")
        assert found["severity"] == "critical"
        assert "messages wait" in found["evidence"][0]
        assert f"make up STACK={platform.stack}" in found["fix"]
    finally:
        platform.run("up", "--stack", platform.stack, timeout=600)
    assert client.wait(waits).state is State.SUCCESS


@pytest.mark.further
def test_a_hung_worker(platform: RunningPlatform, supervisor: Supervisor) -> None:
    name = name_of(platform)
    pid = worker_pid(supervisor)
    os.kill(pid, signal.SIGSTOP)
    try:
        found = diagnosed(platform, "worker-silent")
        assert found["severity"] == "critical"
        assert name in found["what"]
    finally:
        os.kill(pid, signal.SIGCONT)
    is_healthy(platform)


@pytest.mark.further
def test_a_silent_beat(platform: RunningPlatform, supervisor: Supervisor) -> None:
    supervisor.stop_process("beat")
    try:
        assert diagnosed(platform, "beat-silent")["severity"] == "critical"
    finally:
        supervisor.start_process("beat")
    is_healthy(platform)


@pytest.mark.further
def test_a_worker_that_dies_again_and_again(platform: RunningPlatform, supervisor: Supervisor) -> None:
    for times in range(1, 4):
        before = worker_pid(supervisor)
        os.kill(before, signal.SIGKILL)

        def told(times: int = times) -> bool:
            found = doctor(platform).get("worker-died")
            return bool(found) and ("once" if times == 1 else f"{times} times") in found["what"]

        until(told, SECONDS, f"death {times} is told", pause=0.5)
        assert doctor(platform)["worker-died"]["severity"] == ("critical" if times == 3 else "warning")


@pytest.mark.further
def test_a_queue_that_nobody_listens_to(platform: RunningPlatform, client: SupersetClient) -> None:
    with drained(platform) as name:
        waits = client.submit("SELECT 1", platform.database_id)
        found = diagnosed(platform, "queue-unserved")
        assert found["fix"] == f"superset-async worker resume {name}"
        assert f"{name} was drained and takes no more" in found["evidence"]
        platform.run(*found["fix"].split()[1:], "--stack", platform.stack)
        assert client.wait(waits).state is State.SUCCESS


def test_an_unreachable_broker(platform: RunningPlatform, supervisor: Supervisor, redis: Redis) -> None:
    supervisor.stop_process("redis")
    try:
        found = diagnosed(platform, "broker-unreachable")
        assert found["severity"] == "critical"
        assert found["fix"].startswith(f"make up STACK={platform.stack}")
    finally:
        platform.run("up", "--stack", platform.stack, timeout=600)
    until(lambda: _answers(redis), SECONDS, "Valkey answers")


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def test_an_unreachable_web_tier(platform: RunningPlatform, supervisor: Supervisor) -> None:
    supervisor.stop_process("web")
    try:
        found = diagnosed(platform, "web-unreachable")
        assert f"superset-async logs web --stack {platform.stack}" in found["fix"]
    finally:
        platform.run("up", "--stack", platform.stack, timeout=600)


@pytest.mark.further
def test_prefetched_messages_behind_a_busy_worker(
    platform: RunningPlatform, supervisor: Supervisor, client: SupersetClient
) -> None:
    first = name_of(platform)
    children: set[psutil.Process] = set()

    def holds_more_than_it_runs() -> bool:
        # Children that never end what they run; the pool grows meanwhile.
        children.update(psutil.Process(worker_pid(supervisor)).children())
        for child in children:
            child.suspend()
        return _workers(platform)[first] > len(children) >= 4

    with second_worker(platform) as second:
        until(lambda: second in _workers(platform), SECONDS, "the second worker lives")
        platform.run("worker", "drain", second, "--wait", "--stack", platform.stack)
        try:
            holds_more_than_it_runs()
            # Children that come meanwhile have begun a long one before they are suspended.
            queries = [client.submit(f"{ENDLESS} -- {number}", platform.database_id) for number in range(8)]
            until(holds_more_than_it_runs, SECONDS, "the first one holds more than it runs")
            platform.run("worker", "resume", second, "--stack", platform.stack)
            found = diagnosed(platform, "prefetch-hoarding")
            assert first in found["what"]
            assert "prefetch_multiplier of pool default is 4" in found["evidence"]
        finally:
            for child in children:
                child.resume()
        for query in queries:
            platform.run("query", "stop", str(query.id), "--stack", platform.stack, check=False)


def _workers(platform: RunningPlatform) -> dict[str, int]:
    rows = json.loads(platform.run("worker", "list", "-f", "json", "--stack", platform.stack).stdout)
    return {row["worker"]: row["reserved"] for row in rows}


@contextmanager
def second_worker(platform: RunningPlatform) -> Generator[str]:
    """Another worker of the pool, as another pod would be; its name."""
    name = "default@second"
    folder = StateFolder(platform.state_dir)
    command = [
        f"--hostname={name}" if part.startswith("--hostname=") else part
        for part in commands.worker(platform.topology.pool("default"))
    ]
    env = superset_environment(platform.topology, folder, platform.secrets, "worker")
    program = str(binaries.superset_python().parent / command[0])
    with (platform.state_dir / "second.log").open("w") as log:
        process = subprocess.Popen([program, *command[1:]], env=env, cwd=PROJECT, stdout=log, stderr=log)
        try:
            yield name
        finally:
            process.terminate()
            process.wait()


def test_a_full_store(platform: RunningPlatform, redis: Redis, client: SupersetClient) -> None:
    wide = "SELECT n, repeat(md5(n::text), 100) AS text FROM generate_series(1, 500) n"
    query = client.submit(wide, platform.database_id)
    assert client.wait(query).state is State.SUCCESS
    most = platform.topology.redis[0].maxmemory_bytes
    key = "default.filled"
    try:
        redis.setrange(key, int(0.85 * most), b"x")
        found = diagnosed(platform, "redis-memory")
        assert found["severity"] == "warning"
        assert any(f"query {query.id} of {platform.username}" in each for each in found["evidence"])
        redis.setrange(key, int(0.95 * most), b"x")
        assert diagnosed(platform, "redis-memory")["severity"] == "critical"
    finally:
        redis.delete(key)


@pytest.mark.further
def test_keys_without_a_lifetime(platform: RunningPlatform, redis: Redis) -> None:
    cache = platform.topology.database("data_cache")
    redis.execute_command("SELECT", cache.number)
    try:
        redis.set(f"{cache.prefix}lasting", "x")
        found = diagnosed(platform, "keys-without-lifetime")
        assert found["what"].startswith("1 keys of data_cache on redis have no lifetime")
    finally:
        redis.delete(f"{cache.prefix}lasting")
        redis.execute_command("SELECT", 0)


@pytest.mark.further
def test_another_policy_and_no_persistence(platform: RunningPlatform, redis: Redis) -> None:
    wanted = platform.topology.redis[0].maxmemory_policy
    try:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        found = diagnosed(platform, "redis-policy")
        assert found["severity"] == "critical"
        assert found["fix"].endswith(f"CONFIG SET maxmemory-policy {wanted}")
        redis.config_set("appendonly", "no")
        assert diagnosed(platform, "redis-persistence")["fix"].endswith("CONFIG SET appendonly yes")
    finally:
        redis.config_set("maxmemory-policy", wanted)
        redis.config_set("appendonly", "yes")
    is_healthy(platform)


def _set(redis: Redis, setting: str, value: str) -> str:
    """Change a setting of the server; what it was."""
    (before,) = cast("dict[str, str]", redis.config_get(setting)).values()
    redis.config_set(setting, value)
    return before


@pytest.mark.further
def test_files_that_cannot_be_written(platform: RunningPlatform, redis: Redis) -> None:
    folder = StateFolder(platform.state_dir).redis("redis")
    snapshot = folder / "dump.rdb"
    snapshot.unlink(missing_ok=True)
    # A file cannot take the name of a folder with something in it.
    (snapshot / "something").mkdir(parents=True)
    try:
        redis.bgsave()
        assert "rdb_last_bgsave_status" in diagnosed(platform, "redis-disk")["evidence"][0]
    finally:
        shutil.rmtree(snapshot)
        redis.bgsave()
    # Its worker may have ended when a write was refused: that is told of for an hour.
    until(lambda: "redis-disk" not in doctor(platform), SECONDS, "it writes again")


@pytest.mark.further
def test_a_large_append_only_file(platform: RunningPlatform, redis: Redis) -> None:
    volume = platform.topology.redis[0].volume_bytes
    rewrite = _set(redis, "auto-aof-rewrite-percentage", "0")
    try:
        for _ in range(volume // 2 // (64 * MIB) + 1):
            redis.set("default.large", bytes(64 * MIB))
        redis.delete("default.large")
        found = diagnosed(platform, "aof-size")
        assert "BGREWRITEAOF" in found["fix"]
    finally:
        redis.config_set("auto-aof-rewrite-percentage", rewrite)
        redis.bgrewriteaof()
    is_healthy(platform)


def test_a_child_that_was_killed(platform: RunningPlatform, supervisor: Supervisor, client: SupersetClient) -> None:
    query = client.submit(ENDLESS, platform.database_id)
    running(client, query)
    for child in psutil.Process(worker_pid(supervisor)).children():
        child.kill()
    found = diagnosed(platform, "child-lost")
    assert found["severity"] == "warning"
    assert f"superset-async logs worker-default --stack {platform.stack}" in found["fix"]
    platform.run("query", "stop", str(query.id), "--stack", platform.stack, check=False)


@pytest.mark.further
def test_a_child_that_needs_more_memory_than_its_share(
    platform: RunningPlatform, supervisor: Supervisor, client: SupersetClient
) -> None:
    pool = platform.topology.pool("default")
    share = pool.resources.memory_limit_bytes // pool.concurrency
    # The rows stand in the process twice, and are too large to be kept.
    rows = share // (100_000 * 2)
    wide = f"SELECT n, repeat('x', 100000) AS text FROM generate_series(1, {rows}) n"
    with suppress(QueryFailedError):
        client.wait(client.submit(wide, platform.database_id, limit=rows))
    found = diagnosed(platform, "worker-memory")
    assert f"of {share // MIB} MiB" in found["evidence"][0]
    # A peak is a child's for as long as it lives.
    for child in psutil.Process(worker_pid(supervisor)).children():
        child.terminate()
    is_healthy(platform)


def test_connections_that_run_out(platform: RunningPlatform) -> None:
    server = platform.topology.postgres
    most = int(sql(platform, "SHOW max_connections"))
    used = int(sql(platform, "SELECT count(*) FROM pg_stat_activity"))
    with ExitStack() as sessions:
        for _ in range(int(0.9 * most) - used):
            sessions.enter_context(_session(platform))
        found = diagnosed(platform, "connections-exhausted")
        assert f"of {most}" in found["evidence"][0]
        assert server.user in found["evidence"][1]


@contextmanager
def _session(platform: RunningPlatform) -> Generator[None]:
    server = platform.topology.postgres
    command = [
        str(binaries.postgres_program("psql")),
        *("--no-psqlrc", f"--host={server.host}", f"--port={server.port}"),
        *(f"--username={server.user}", f"--dbname={server.database}"),
    ]
    env = os.environ | {"PGPASSWORD": platform.secrets[server.password_env]}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            yield
        finally:
            process.communicate("\\q\n")


def test_many_of_the_same_statement(platform: RunningPlatform, client: SupersetClient) -> None:
    with drained(platform):
        queries = [client.submit("SELECT 'the same'", platform.database_id) for _ in range(IDENTICAL)]
        found = diagnosed(platform, "stampede")
        assert found["what"].startswith(f"{IDENTICAL} identical statements of 1 users")
        assert f"all but {queries[0].id}" in found["fix"]
    for query in queries:
        assert client.wait(query).state is State.SUCCESS


@pytest.mark.further
def test_a_queue_near_its_bound(platform: RunningPlatform, redis: Redis) -> None:
    bound = platform.topology.resilience.max_queued
    with drained(platform):
        redis.lpush("default", *["no message"] * bound)
        try:
            assert diagnosed(platform, "queue-deep")["severity"] == "critical"
        finally:
            redis.delete("default")


def test_status_asks_for_an_answer_here_and_anywhere(platform: RunningPlatform) -> None:
    there = ("--url", platform.url, "--username", platform.username, "--password-file", str(platform.password_file))
    for where in (("--stack", platform.stack), there):
        known = json.loads(platform.run("status", "--json", *where).stdout)
        assert (known["state"], known["problems"]) == ("running", [])
        assert {name: each["error"] for name, each in known["asked"].items()} == {"log_in": None, "query": None}
    with drained(platform):
        done = platform.run("status", "--json", *there, check=False)
    assert done.returncode == 4
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem.startswith("a query is not answered")


@pytest.mark.further
def test_status_sees_a_broker_that_takes_no_write_and_a_beat_that_does_not_sweep(
    platform: RunningPlatform, redis: Redis
) -> None:
    database = platform.topology.database("coordination")
    redis.execute_command("SELECT", database.number)
    swept = f"{database.prefix}{REAPED_AT}"
    try:
        # As many replicas as there are not.
        redis.config_set("min-replicas-to-write", "1")
        assert any("the broker takes no write" in each for each in platform.status["problems"])
    finally:
        redis.config_set("min-replicas-to-write", "0")
    Supervisor(StateFolder(platform.state_dir)).stop_process("beat")
    try:
        redis.set(swept, "1")
        assert any("beat last swept" in each for each in platform.status["problems"])
    finally:
        redis.execute_command("SELECT", 0)
        Supervisor(StateFolder(platform.state_dir)).start_process("beat")


@pytest.mark.further
def test_the_checklist_sees_a_restart_that_was_survived(platform: RunningPlatform, supervisor: Supervisor) -> None:
    def line() -> dict[str, Any]:
        done = platform.run("checklist", "--users", "1", "--json", "--stack", platform.stack, check=False)
        lines = {each["id"]: each for each in json.loads(done.stdout)["lines"]}
        assert set(lines) == {
            *("broker-persistence", "workers", "size-redis", "timeouts", "load", "failover-redis"),
            *("monitoring", "backups", "drill"),
        }
        assert done.returncode == 13
        return lines["broker-persistence"]

    platform.run("query", "run", "SELECT 1", "--stack", platform.stack)
    before = line()
    supervisor.stop_process("redis")
    platform.run("up", "--stack", platform.stack, timeout=600)
    after = line()
    assert after["state"] == "met", before
    assert "what was written 20" in after["evidence"]


def test_slow_groups_what_was_executed_and_tells_no_value(platform: RunningPlatform, client: SupersetClient) -> None:
    for number in (1, 2, 3):
        client.wait(client.submit(f"SELECT {number} AS n, 'hidden-{number}' AS grouped_by_slow", platform.database_id))
    found = json.loads(platform.run("slow", "--hours", "1", "-f", "json", "--stack", platform.stack).stdout)
    (row,) = [each for each in found["rows"] if "grouped_by_slow" in each["statement"]]
    assert row["statement"] == "SELECT ? AS n, ? AS grouped_by_slow"
    assert (row["executions"], row["rows"], row["users"], row["database"]) == (3, 3, 1, "examples")
    assert row["cost"] > 0
    assert "hidden" not in json.dumps(found)


def test_one_query_is_followed_by_its_id_through_logs_slow_and_cost(
    platform: RunningPlatform, client: SupersetClient
) -> None:
    sql = "SELECT 4711 AS followed, 'told to nobody' AS text"
    query = client.submit(sql, platform.database_id)
    assert client.wait(query).state is State.SUCCESS

    def about(process: str) -> list[dict[str, Any]]:
        text = (platform.state_dir / f"logs/{process}.log").read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("query_id") == str(query.id)]

    until(lambda: any("duration" in line for line in about("worker-default")), SECONDS, "the worker has logged its end")
    (ended,) = [line for line in about("worker-default") if "duration" in line]
    assert ended["user"] == platform.username
    assert ended["task_id"] in ended["message"]
    asked = {(line["method"], line["path"]): line for line in about("web")}
    submitted = asked["POST", "/api/v1/sqllab/execute/"]
    assert (submitted["user"], submitted["status"]) == (platform.username, 202)
    assert submitted["duration"] > 0
    for process in ("web", "worker-default", "beat", "exporter"):
        assert "told to nobody" not in (platform.state_dir / f"logs/{process}.log").read_text()
    rows = json.loads(platform.run("slow", "-f", "json", "--stack", platform.stack).stdout)["rows"]
    (row,) = [row for row in rows if "followed" in row["statement"]]
    assert (row["slowest"], row["executions"]) == (str(query.id), 1)
    cost = json.loads(platform.run("cost", "--by", "user", "-f", "json", "--stack", platform.stack).stdout)
    assert platform.username in {each["user"] for each in cost["rows"]}


def test_every_line_of_every_process_is_one_of_the_format(platform: RunningPlatform, client: SupersetClient) -> None:
    client.wait(client.submit("SELECT 1", platform.database_id))
    for process in ("web", "worker-default", "beat", "exporter"):
        for line in (platform.state_dir / f"logs/{process}.log").read_text().splitlines():
            # What Superset and Celery print themselves, at the start and at the end.
            if line.startswith(("Loaded your LOCAL configuration at", "worker: ")) or not line:
                continue
            assert list(json.loads(line))[:4] == ["time", "level", "logger", "message"], (process, line)
