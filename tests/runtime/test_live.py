"""A web process and a worker of the multi-tenant stack, on real PostgreSQL and Valkey: limits, routes and timeouts in effect."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

import httpx
import pytest

from local import binaries
from runtime.environment import audit_records
from tests.runtime.conftest import (
    DECLARED_LIMIT,
    OPERATOR_PASSWORD,
    PROJECT,
    STACK_LIMIT,
    TENANT_LIMIT,
    Prepared,
    printed,
    until,
)
from tests.runtime.stacks import REDIS_PASSWORDS
from topology import commands, readers

pytestmark = pytest.mark.superset


def redis_command(port: int, database: int, *words: str, user: str = "operator", password: str = OPERATOR_PASSWORD) -> Any:
    """The reply of a Valkey to one command, as redis-py in Superset's environment reads it, as a list."""
    program = (
        "import json, os, redis, sys; "
        "user, password = os.environ['U'], os.environ['P']; "
        f"client = redis.Redis(port={port}, db={database}, username=user, password=password, decode_responses=True); "
        "reply = client.execute_command(*sys.argv[1:]); "
        "print(json.dumps(reply if isinstance(reply, list) else [reply]))"
    )
    command = [str(binaries.superset_python()), "-c", program, *words]
    done = subprocess.run(command, env={"U": user, "P": password}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


#: What each process of this module reads of its topology.
READS = "reads.txt"
#: Fields that a module reads at the start of a process, and by which nothing is done there: that routes have listeners is made
#: sure of; a router is replaced with the topology; Celery's schedule is in every configuration and beat's alone, and the web
#: tier's timeout in a worker's too; queues are told again when the file has changed; a worker reads its pool's shares, which
#: `of_pool` has; the exporter keeps nothing in a cache; threads are in the web tier's command line, by which it restarts.
INERT = {
    "runtime.environment.redis_databases": ("redis_databases.*.default_ttl_seconds",),
    "runtime.tenants.routes": ("celery.queues", "pools", "tenants", "urgent"),
    "runtime.tenants.router": ("tenants", "urgent"),
    "runtime.tenants.recognition": ("tenants",),
    "runtime.config.limits": ("web.request_timeout_seconds",),
    "runtime.config.tasks": ("beat.jobs", "celery.queues"),
    "runtime.broker.queues": ("celery.queues",),
    "runtime.tenants.fairness": ("pools",),
    "runtime.superset.synchronous": ("web.threads",),
}


def traced(prepared: Prepared, role: str) -> dict[str, str]:
    """The environment of a process of `role` that writes down what it reads of its topology."""
    env = prepared.environment(role)
    folder = PROJECT / "tests/runtime/traced"
    return env | {"PYTHONPATH": f"{folder}:{PROJECT}", "TRACED_READS": str(prepared.services.folder / READS)}


@pytest.fixture(scope="module")
def worker(prepared: Prepared) -> Iterator[None]:
    """The worker of Bob's tenant, with the very command that the platform starts."""
    log = prepared.services.folder / "worker.log"
    command = commands.worker(prepared.topology.pool("tenant-b"))
    with log.open("w") as output, running(command, traced(prepared, "worker"), output) as process:
        until(lambda: " ready." in log.read_text() or process.poll() is not None, 90, "the worker is ready")
        assert process.poll() is None, log.read_text()[-4000:]
        yield


@pytest.fixture(scope="module")
def live(prepared: Prepared, worker: None) -> dict[str, Any]:
    *records, said = printed("web_process", traced(prepared, "web"))
    return {**json.loads(said), "trail": audit_records.read(records)}


def test_worker_and_web_process_have_the_topologys_values(live: dict[str, Any], prepared: Prepared) -> None:
    plan = prepared.topology.celery
    replies = list(live["worker_conf"].values())
    assert len(replies) == 1
    for conf in (replies[0], live["web_conf"]):
        assert conf["task_default_queue"] == "default"
        assert set(conf["task_queues"]) == {"default", "priority", "tenant-a", "tenant-b"}
        assert conf["task_create_missing_queues"] is False
        assert conf["task_acks_late"] is True
        assert conf["task_reject_on_worker_lost"] is True
        assert (conf["task_soft_time_limit"], conf["task_time_limit"]) == (540, 600)
        limits = {"soft_time_limit": 540, "time_limit": 600}
        assert limits.items() <= conf["task_annotations"]["sql_lab.get_sql_results"].items()
        assert conf["broker_transport_options"]["visibility_timeout"] == plan.visibility_timeout_seconds
        assert conf["result_expires"] == plan.result_expires_seconds
        assert conf["result_backend"].startswith("db+postgresql+psycopg2://")
        assert set(conf["beat_schedule"]) == {"celery-results", "retired-queues", "executions", "queries", "logs"}


def waiting(prepared: Prepared, queue: str) -> list[dict[str, Any]]:
    """The headers of the messages in `queue`, oldest first, with the keyword arguments of their tasks."""
    texts = redis_command(prepared.services.redis_port, 0, "LRANGE", queue, "0", "-1")
    messages = [json.loads(text) for text in reversed(texts)]
    return [{**one["headers"], "kwargs": json.loads(base64.b64decode(one["body"]))[1]} for one in messages]


def test_a_tenants_messages_carry_its_name_and_limits_to_its_queue(live: dict[str, Any], prepared: Prepared) -> None:
    """By user, by role and by guest token, of SQL Lab and of charts; the guest calls itself like another tenant's user."""
    assert (live["alice"]["status"], live["carol"]["status"]) == (202, 202)
    messages = waiting(prepared, "tenant-a")
    assert [(one["task"], one["kwargs"].get("username")) for one in messages] == [
        ("load_chart_data_into_cache", None),
        ("load_chart_data_into_cache", None),
        ("sql_lab.get_sql_results", "alice"),
        ("sql_lab.get_sql_results", "carol"),
    ]
    assert {(one["superset_async_tenant"], *one["timelimit"]) for one in messages} == {("tenant-a", 60, 50)}


def test_strangers_go_to_the_default_queue_and_may_mark_a_query_urgent(live: dict[str, Any], prepared: Prepared) -> None:
    assert [one["status"] for one in live["dave"]] == [202, 202]
    for queue in ("default", "priority"):
        (message,) = waiting(prepared, queue)
        assert message["kwargs"]["username"] == "dave"
        assert message["timelimit"] == [600, 540]
        assert "superset_async_tenant" not in message


def test_by_its_database_a_strangers_query_is_a_tenants_and_runs_in_its_pool(
    live: dict[str, Any], prepared: Prepared
) -> None:
    assert live["warehouse"]["rows"] == [{"two": 2}]
    # No other pool has a worker here.
    log = (prepared.services.folder / "worker.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    ended = [line for line in lines if line["message"].startswith("Task sql_lab.get_sql_results[") and "duration" in line]
    assert ended and {line["tenant"] for line in ended} == {"tenant-b"}
    assert {"query_id", "task_id", "user", "duration"} <= set(ended[0])


def test_the_web_process_knows_whose_each_user_is_and_limits_their_statements(live: dict[str, Any]) -> None:
    own, other = {"tenant": "tenant-a", "limit": f"{TENANT_LIMIT}s"}, f"{STACK_LIMIT}s"
    assert live["tenants"] == {
        "alice": own,
        "bob": {"tenant": "tenant-b", "limit": other},
        "carol": own,
        "dave": {"tenant": "", "limit": other},
        "guest": own,
    }


def test_tasks_are_counted_by_tenant_as_they_are_sent_and_as_they_end(live: dict[str, Any], prepared: Prepared) -> None:
    assert live["slow"]["query"]["status"] == "failed"
    counters = prepared.topology.database("coordination")
    reply = redis_command(prepared.services.redis_port, counters.number, "HGETALL", f"{counters.prefix}counters")
    # The reply is a mapping in one protocol and a flat list in the other.
    pairs = reply[0].items() if isinstance(reply[0], dict) else zip(reply[::2], reply[1::2], strict=True)
    counted = {
        (name, *sorted(labels.items())): float(value) for (name, labels), value in ((json.loads(k), v) for k, v in pairs)
    }

    def of(name: str, queue: str, tenant: str, **more: str) -> float:
        labels = {"task_name": "sql_lab.get_sql_results", "queue": queue, "tenant": tenant, **more}
        return counted[(name, *sorted(labels.items()))]

    assert of("celery_task_submitted_total", "tenant-a", "tenant-a") == 2
    assert of("celery_task_submitted_total", "priority", "") == 1
    # Three that succeed, one too slow, and those that are refused by the guard, each asked for in both ways.
    guarded = 2 * len(live["guarded"])
    assert of("celery_task_submitted_total", "tenant-b", "tenant-b") == 4 + guarded
    assert of("celery_task_completed_total", "tenant-b", "tenant-b", status="success", reason="") == 3
    assert of("celery_task_completed_total", "tenant-b", "tenant-b", status="failure", reason="error") == 1 + guarded
    assert of("celery_task_duration_seconds_count", "tenant-b", "tenant-b") == 4 + guarded
    assert of("celery_task_duration_seconds_bucket", "tenant-b", "tenant-b", le="+Inf") == 4 + guarded
    waits = [labels for (name, *labels) in counted if name == "celery_task_queuing_time_seconds_count"]
    assert [("queue", "tenant-b"), ("tenant", "tenant-b")] in waits
    assert of("celery_task_duration_seconds_sum", "tenant-b", "tenant-b") > DECLARED_LIMIT


def test_a_query_is_answered_and_its_rows_live_as_long_as_the_stack_says(live: dict[str, Any], prepared: Prepared) -> None:
    assert live["bob"]["query"]["status"] == "success", live["bob"]
    assert live["bob"]["rows"] == [{"one": 1}]
    results = prepared.topology.database("query_results")
    port = prepared.services.redis_port + 1
    keys = redis_command(port, results.number, "KEYS", "*")
    assert len(keys) == 3
    for key in keys:
        assert key.startswith(results.prefix)
        (ttl,) = redis_command(port, results.number, "TTL", key)
        assert 3500 < int(ttl) <= prepared.topology.caching.query_results_ttl_seconds
    states = prepared.services.sql("SELECT status FROM celery_taskmeta")
    assert "SUCCESS" in states.split()


def test_the_database_ends_a_slow_statement_and_the_user_reads_why(live: dict[str, Any], prepared: Prepared) -> None:
    slow = live["slow"]
    assert slow["query"]["status"] == "failed"
    # From when the worker took it: how long it waited for the worker depends on this machine's load.
    seconds = float(slow["query"]["end_time"]) / 1000 - float(slow["query"]["start_running_time"]) / 1000
    assert DECLARED_LIMIT <= seconds < prepared.topology.celery.soft_time_limit_seconds
    assert f"The database ended this statement after {DECLARED_LIMIT}s, its limit" in slow["error_message"]


def test_a_database_that_nobody_declared_has_the_stacks_limit(live: dict[str, Any]) -> None:
    assert live["undeclared_limit"] == {
        "none": f"{STACK_LIMIT}s",
        "stricter": "2s",
        "endless": f"{STACK_LIMIT}s",
        "longer than a task": f"{STACK_LIMIT}s",
    }


def test_a_guests_browser_has_a_channel_as_a_users_has(live: dict[str, Any]) -> None:
    assert live["channels"] == ["of-this-browser", "of-this-browser"]


def test_an_administrator_and_nobody_else_is_told_the_usage(live: dict[str, Any]) -> None:
    usage = live["usage"]
    assert [usage[who]["status"] for who in ("admin", "wrong", "analyst")] == [200, 400, 403]
    found = usage["admin"]["json"]["result"]
    assert (found["by"], found["hours"], found["currency"]) == ("tenant", 2.0, "USD")
    assert {"tenant-a", "tenant-b"} <= {row["tenant"] for row in found["rows"]}


def test_event_streams_expire(live: dict[str, Any], prepared: Prepared) -> None:
    assert live["alice"]["status"] == 202
    (ttl,) = redis_command(prepared.services.redis_port, 2, "TTL", "async-events-c")
    assert 86_000 < int(ttl) <= 86_400


def test_no_process_asks_redis_for_more_than_its_user_may(live: dict[str, Any], prepared: Prepared) -> None:
    """Neither server refused a command, a key, a channel or a password to the init job, the web process or the worker.

    Both servers have both users, each with the patterns that it has where one server carries everything.
    """
    assert live["bob"]["query"]["status"] == "success"
    first = prepared.services.redis_port
    refused = {port: redis_command(port, 0, "ACL", "LOG") for port in (first, first + 1)}
    assert refused == {first: [], first + 1: []}
    with pytest.raises(subprocess.CalledProcessError):
        redis_command(first + 1, 0, "GET", "unacked", user="cache", password=REDIS_PASSWORDS["cache"])
    assert len(redis_command(first + 1, 0, "ACL", "LOG")) == 1


def test_what_a_request_makes_is_kept_though_it_asks_an_analytic_database_in_between(live: dict[str, Any]) -> None:
    """Such a connection is counted in the metadata database, in a transaction of its own: not the end of the request's."""
    made = live["dataset"]
    assert (made["status"], made["json"]["id"] is not None) == (201, True), made


def test_people_log_in_whatever_the_process_has_done(live: dict[str, Any]) -> None:
    """A second application in the process, as an import of `superset.tasks.celery_app` makes one, would answer 500."""
    assert live["log_in"] == [302, "/"]


def test_guessing_passwords_is_slowed_down(live: dict[str, Any]) -> None:
    """Through the form and through the API; Superset alone limits neither."""
    for way in ("form", "api"):
        assert len(live["guesses"][way]) == 10
        assert live["guesses"][way][0] != 429
        assert live["guesses"][way][-1] == 429
        # The stack's limit is of a second.
        assert live["guesses"]["retry_after"][way] in ("0", "1")


def test_a_script_that_would_lift_a_guard_is_refused_before_it_runs(live: dict[str, Any], prepared: Prepared) -> None:
    """As a query of a worker's, and as a synchronous one."""
    for sql, (queried, synchronous) in live["guarded"].items():
        assert queried["query"]["status"] == "failed", sql
        for said in (queried["error_message"], json.dumps(synchronous["json"])):
            assert "was not executed" in said and "without DML" in said, (sql, said)
        assert synchronous["status"] >= 400
    assert prepared.services.sql("SELECT to_regclass('lifted')", database="analytics") == ""


@pytest.fixture(scope="module")
def reads(live: dict[str, Any], prepared: Prepared) -> set[tuple[str, str, str, str]]:
    """Kind of process, which topology, path and reading module of each field that a process has read at its work.

    Web and worker are those of `live`. Beat runs until its reaper has swept, and the exporter until it was scraped.
    """
    services, plan = prepared.services, prepared.topology
    init = [str(binaries.superset_python()), "-m", "runtime.start.init"]
    subprocess.run(init, env=traced(prepared, "init"), cwd=PROJECT, check=True)
    coordination = plan.database("coordination")

    def swept() -> bool:
        return redis_command(services.redis_port, coordination.number, "EXISTS", f"{coordination.prefix}reaper:last") == [1]

    def scraped() -> bool:
        try:
            return "celery_exporter_up 1" in httpx.get(f"http://127.0.0.1:{plan.exporter.port}/metrics", timeout=30).text
        except httpx.HTTPError:
            return False

    redis_command(services.redis_port, coordination.number, "DEL", f"{coordination.prefix}reaper:last")
    beat = commands.beat(str(services.folder / "beat-schedule"))
    exporter = {key: value for key, value in traced(prepared, "exporter").items() if key != "SUPERSET_ASYNC_ROLE"}
    with running(beat, traced(prepared, "beat")), running(commands.exporter(), exporter):
        until(scraped, 120, "the exporter is scraped")
        until(swept, 120, "the reaper sweeps", pause=1)
    lines = (services.folder / READS).read_text().splitlines()
    return {(kind, source, path, reader) for kind, source, path, reader in map(str.split, lines)}


@contextmanager
def running(
    command: Sequence[str], env: dict[str, str], output: IO[str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """The process of `command` while the block runs; what it says goes to `output`, or nowhere."""
    to = output or subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, cwd=PROJECT, stdout=to, stderr=to)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def test_what_a_process_reads_at_its_start_is_what_it_restarts_for(reads: set[tuple[str, str, str, str]]) -> None:
    """Real processes at work: none reads, of the topology of its start, a field that its restart does not depend on."""
    missed = {
        (kind, path, reader)
        for kind, source, path, reader in reads
        if source == "start"
        and readers.why_not(path, cast("readers.Process", kind))
        and not path.startswith(INERT.get(reader, ()))
    }
    assert not missed, "\n".join(map(str, sorted(missed)))


def test_what_is_said_to_be_read_live_is(reads: set[tuple[str, str, str, str]]) -> None:
    live = {(kind, path) for kind, source, path, _ in reads if source == "live"}
    assert {("web", "resilience.max_queued"), ("worker", "tenants.*.id"), ("exporter", "celery.queues")} <= live
    assert {kind for kind, *_ in reads} == set(readers.PROCESSES)


def test_an_administrator_sees_what_happens_now_and_others_where_their_own_query_waits(live: dict[str, Any]) -> None:
    answers = live["live"]
    assert {what: [one["status"] for one in both] for what, both in answers.items()} == {
        what: [200, 403] for what in ("queues", "workers", "queries", "doctor", "slow", "checklist?users=5")
    }
    queues = {row["queue"]: row for row in answers["queues"][0]["json"]["result"]}
    # Alice's pool has no worker here.
    assert queues["tenant-a"]["waiting_users"] == {"alice": 2, "carol": 1, "(guest)": 1}
    assert queues["tenant-a"]["problem"].startswith("no worker listens to it")
    assert (queues["tenant-b"]["workers"], queues["tenant-b"]["problem"]) == (1, None)
    (worker,) = answers["workers"][0]["json"]["result"]
    # It says so every five seconds: it may have been at work then.
    assert worker["state"] in ("idle", "working")
    assert worker["queues"] == ["tenant-b"]
    rows = answers["queries"][0]["json"]["result"]
    assert {(row["kind"], row["state"], row["tenant"]) for row in rows if row["queue"] == "tenant-a"} == {
        ("sql", "waiting", "tenant-a"),
        ("chart", "waiting", "tenant-a"),
    }
    findings = {each["id"]: each for each in answers["doctor"][0]["json"]["result"]["findings"]}
    assert "no worker listens to queue tenant-a" in findings["queue-unserved"]["what"]
    statements = {row["statement"] for row in answers["slow"][0]["json"]["result"]["rows"]}
    assert {"SELECT ? AS one", "SELECT SLOW(?)"} <= statements
    assert len(answers["checklist?users=5"][0]["json"]["result"]) == 8
    mine, of_anyone, of_others = live["place"]
    assert (mine["status"], of_anyone["status"], of_others["status"]) == (200, 200, 404)
    assert mine["json"]["result"]["queue"] == rows[-1]["queue"]


def recorded(live: dict[str, Any], action: str, **about: object) -> list[dict[str, Any]]:
    """The records of an action that say so of it."""
    return [each for each in live["trail"] if each["action"] == action and about.items() <= each.items()]


def test_the_trail_says_who_ran_stopped_fetched_and_exported_which_query(live: dict[str, Any]) -> None:
    audited = live["audited"]
    assert audited["answers"][:2] == [200, 200]
    stopped, done = (str(query_id) for query_id in (live["dave"][1]["json"]["query"]["queryId"], audited["done"]))
    (run,) = recorded(live, "query.run", query_id=done)
    assert run == run | {"user": "bob", "outcome": "ok", "status": 202, "address": "127.0.0.1", "process": "web"}
    assert (run["task_id"], run["tenant"]) == (f"sql-{done}", "tenant-b")
    for action, query_id, user in (
        ("query.fetch", done, "bob"),
        ("query.export", done, "bob"),
        ("query.run", stopped, "dave"),
        ("query.stop", stopped, "dave"),
    ):
        assert [each["user"] for each in recorded(live, action, query_id=query_id, outcome="ok")] == [user]
    assert "of carol" not in json.dumps(live["trail"])


def test_the_trail_has_log_ins_good_and_bad(live: dict[str, Any]) -> None:
    assert live["audited"]["answers"][-2:] == [401, 401]
    assert [each["user"] for each in recorded(live, "login", outcome="refused", way="password")] == ["alice", "nobody"]
    assert {each["user"] for each in recorded(live, "login", outcome="ok")} == {"alice", "bob", "carol", "dave", "analyst"}
    assert recorded(live, "login", outcome="refused", status=429)
    assert "a-wrong-one" not in json.dumps(live["trail"])


def test_the_trail_has_administrators_changes_and_no_secret(live: dict[str, Any]) -> None:
    assert live["audited"]["answers"][2:6] == [201, 200, 200, 200]
    (eve,) = recorded(live, "change.create", kind="user", name="eve")
    assert eve == eve | {"user": "bob", "roles.added": ["Finance"], "username.after": "eve"}
    assert "password" in eve["fields"]
    (role,) = recorded(live, "change.update", kind="role", name="Finance", user="bob")
    assert len(role["permissions.added"]) == 2
    (database,) = recorded(live, "change.update", kind="database", name="analytics", user="bob")
    assert database == database | {"allow_ctas.before": "False", "allow_ctas.after": "True"}
    (dataset,) = recorded(live, "change.create", kind="dataset", name="made")
    assert (dataset["user"], dataset["owners.added"]) == ("bob", ["bob"])
    assert [each["guest"] for each in recorded(live, "guest_token.issue", user="bob")] == ["visitor"]
    # A log-in writes when it was, and how often: that is no administrator's change.
    assert not recorded(live, "change.update", kind="user")
    assert "of-eve-alone" not in json.dumps(live["trail"])


def test_the_process_that_writes_the_trail_cannot_change_it(live: dict[str, Any]) -> None:
    assert live["tampering"] == {"write at the begin": "ESPIPE", "go back": "ESPIPE", "cut": "EINVAL"}
    assert recorded(live, "login", outcome="ok")
