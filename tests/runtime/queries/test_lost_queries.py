"""Queries that nobody would end: what the broker, a worker or a web process loses is ended or restored, on real services.

One web process in Superset's environment does what the tests tell it, and sweeps as the reaper does, on a clock of its own; its
broker is a Valkey with AOF that the tests kill, fill and empty. Queues of tenants A and B have no worker.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import pytest
from redis import Redis

from local import binaries
from runtime.queries import abandoned_charts, chart_stops, reaper
from tests.runtime.conftest import OPERATOR_PASSWORD, PROJECT, Prepared, free_ports, until
from tests.runtime.stacks import REDIS_PASSWORDS
from topology import redis_acl
from topology.model import RedisInstance, Topology

pytestmark = pytest.mark.superset

#: Two sweeps, of which the second acts.
TWO_SWEEPS = [1.0, 11.0]


@dataclass
class BrokerServer:
    """A Valkey with the broker's access rules that keeps what it was told, also through a kill."""

    instance: RedisInstance
    folder: Any
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers with what it had."""
        lines = [
            f"port {self.instance.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"aclfile {self.folder}/users.acl",
            "appendonly yes",
            'save ""',
            "maxmemory-policy noeviction",
        ]
        (self.folder / "users.acl").write_text(redis_acl.server_acl(self.instance, REDIS_PASSWORDS, OPERATOR_PASSWORD))
        (self.folder / "valkey.conf").write_text("\n".join(lines))
        with (self.folder / "log").open("ab") as log:
            command = [str(binaries.valkey_server()), str(self.folder / "valkey.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, 20, "Valkey answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client(0).ping())
        except Exception:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def client(self, database: int) -> Any:
        """As the operator."""
        return cast(
            Any,
            Redis(
                port=self.instance.port, db=database, username="operator", password=OPERATOR_PASSWORD, decode_responses=True
            ),
        )


class Web:
    """The web process, as methods: `web.submit("alice", "SELECT 1")`."""

    def __init__(self, prepared: Prepared, plan: Topology) -> None:
        env = prepared.services.process_environment(plan, "web", "lost-queries")
        self.log = prepared.services.folder / "lost-queries.log"
        self.process = subprocess.Popen(
            [str(binaries.superset_python()), "-m", "tests.runtime.queries.web_process"],
            env=env,
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        assert self._line() == "ready", self.log.read_text()[-4000:]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"do": name, "args": args, **kwargs}) + "\n")
            self.process.stdin.flush()
            line = self._line()
            assert line, self.log.read_text()[-4000:]
            said = json.loads(line)
            assert "answer" in said, f"{name}: {said['error']}\n{self.log.read_text()[-4000:]}"
            return said["answer"]

        return call


@dataclass
class World:
    """The parts of one run, and questions to its databases."""

    prepared: Prepared
    plan: Topology
    broker: BrokerServer
    web: Web

    def row(self, query_id: int) -> dict[str, Any]:
        """A row of the query table."""
        text = self.prepared.services.sql(f"SELECT row_to_json(q) FROM (SELECT * FROM query WHERE id = {query_id}) q")
        return cast("dict[str, Any]", json.loads(text))

    def waiting(self, queue: str) -> int:
        """Messages of a queue."""
        return int(self.broker.client(0).llen(queue))

    def counted(self, name: str) -> dict[str, int]:
        """The counter `name` by the values of its labels."""
        found = self.broker.client(self.plan.database("coordination").number).hgetall("coordination:counters")
        parsed = {tuple(json.loads(field)[1].values()): int(value) for field, value in found.items() if f'"{name}"' in field}
        return {",".join(key): value for key, value in parsed.items()}


@pytest.fixture(scope="module")
def world(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    first, second = prepared.topology.redis
    mine = first.model_copy(update={"port": free_ports(1)})
    plan = prepared.topology.model_copy(update={"redis": (mine, second)})
    broker = BrokerServer(mine, tmp_path_factory.mktemp("broker"))
    broker.start()
    web = Web(prepared, plan)
    try:
        # Alice's and Bob's tenants have queues of their own; Carol's is the default one.
        for user in ("alice", "bob", "carol"):
            web.user(user)
        yield World(prepared, plan, broker, web)
    finally:
        web.process.kill()
        web.process.wait(20)
        broker.kill()


@pytest.fixture(autouse=True)
def unbroken(world: World) -> Iterator[None]:
    """Each test begins with empty queues and wide bounds."""
    world.broker.client(0).flushdb()
    world.broker.client(world.plan.database("coordination").number).flushdb()
    world.prepared.services.sql("UPDATE query SET status = 'stopped' WHERE status IN ('pending', 'running')")
    world.web.bounds(1000, 1000)
    # By its clock, Redis has been there for long enough.
    world.web.sweep(1, 30)
    yield


def submitted(world: World, user: str = "alice", sql: str = "SELECT 1") -> int:
    """Submit a query that is taken; its id."""
    answer = world.web.submit(user, sql)
    assert answer["status"] == 202, answer
    return int(answer["json"]["query"]["queryId"])


def forget_copies(world: World) -> None:
    """As if all messages so far had been sent a second time."""
    world.prepared.services.sql("DELETE FROM superset_async_messages")


def test_a_query_whose_message_the_broker_lost_is_sent_once_more_and_its_neighbour_waits_on(world: World) -> None:
    gone, kept = submitted(world, "alice"), submitted(world, "bob")
    (text,) = world.broker.client(0).lrange("tenant-a", 0, -1)
    world.broker.client(0).delete("tenant-a")
    since = int(time.time() * 1000) - 1000
    world.web.sweep(*TWO_SWEEPS)
    assert (world.row(gone)["status"], world.row(kept)["status"]) == ("pending", "pending")
    assert world.web.send_due() == 1
    # All that a worker reads of a message: what it executes, under which id, with which limits, for whom.
    (again,) = world.broker.client(0).lrange("tenant-a", 0, -1)
    first, second = json.loads(text), json.loads(again)
    assert second["body"] == first["body"]
    kept_headers = ("task", "id", "timelimit", "superset_async_tenant")
    assert {name: second["headers"][name] for name in kept_headers} == {
        name: first["headers"][name] for name in kept_headers
    }
    # What is lost twice is not sent for ever.
    world.broker.client(0).delete("tenant-a")
    world.web.sweep(1, 9)
    assert world.row(gone)["status"] == "pending"
    world.web.sweep(2)
    assert (world.row(gone)["status"], world.row(kept)["status"]) == ("failed", "pending")
    assert world.row(gone)["error_message"] == reaper.MESSAGE_LOST
    assert world.web.changed("alice", since) == {world.row(gone)["client_id"]: "failed"}
    assert world.counted("superset_async_reaped_total") == {"copy": 1, "query": 1}


def test_what_is_sent_again_to_a_queue_that_is_gone_waits_in_the_default_one(world: World) -> None:
    """Its tenant was removed from the stack meanwhile."""
    submitted(world)
    world.broker.client(0).delete("tenant-a")
    world.prepared.services.sql("UPDATE superset_async_messages SET message = replace(message, 'tenant-a', 'removed')")
    world.web.sweep(*TWO_SWEEPS)
    assert world.web.send_due() == 1
    assert world.waiting("default") == 1


def test_a_query_that_is_stopped_while_its_message_is_lost_is_not_sent(world: World) -> None:
    query = submitted(world)
    world.broker.client(0).delete("tenant-a")
    assert world.web.stop("alice", world.row(query)["client_id"]) == 200
    world.web.sweep(*TWO_SWEEPS)
    assert world.web.send_due() == 0
    assert world.row(query)["status"] == "stopped"


def test_copies_of_queries_that_no_worker_ever_began_go_after_a_day(world: World) -> None:
    old, young = submitted(world), submitted(world)
    ids = "SELECT string_agg(query_id::text, ',' ORDER BY query_id) FROM superset_async_messages WHERE query_id >= "
    move = "UPDATE superset_async_messages SET sent_at = now() - interval '25 hours' WHERE query_id = "
    world.prepared.services.sql(f"{move}{old}")
    assert world.prepared.services.sql(f"{ids}{old}") == f"{old},{young}"
    world.web.prune(90)
    assert world.prepared.services.sql(f"{ids}{old}") == str(young)


def test_nothing_is_ended_right_after_redis_was_away(world: World) -> None:
    query = submitted(world)
    forget_copies(world)
    world.broker.kill()
    world.broker.start()
    world.broker.client(0).delete("tenant-a")
    world.web.sweep(11, 11, 11)
    assert world.row(query)["status"] == "pending"
    world.web.sweep(4)
    assert world.row(query)["status"] == "failed"


def test_the_query_of_a_dead_worker_fails_and_its_statement_is_cancelled(world: World) -> None:
    lost, alive, waits = submitted(world), submitted(world), submitted(world, "bob")
    world.broker.client(0).delete("tenant-a")
    services = world.prepared.services
    started = "SELECT pg_backend_pid() AS pid, slow(60)"
    psql = [str(binaries.postgres_program("psql")), services.analytics_uri, "--no-psqlrc", "-c", started]
    tag = f"superset-async-{lost}-0a1b"
    statement = subprocess.Popen(
        psql, env=os.environ | {"PGAPPNAME": tag}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%slow(60)%' AND pid <> pg_backend_pid()"
    try:
        until(lambda: services.sql(busy) != "", 10, "the statement runs")
        identity = services.sql(
            busy.replace("pid FROM", "concat_ws(' ', pid, extract(epoch FROM backend_start), application_name) FROM")
        )
        extra = json.dumps({"superset_async_task": f"sql-{lost}", "cancel_query": identity})
        services.sql(f"UPDATE query SET status = 'running', extra_json = '{extra}' WHERE id = {lost}")
        services.sql(f"UPDATE query SET status = 'running' WHERE id = {alive}")
        lease = f"coordination:lease:sql:{alive}"
        world.broker.client(world.plan.database("coordination").number).set(lease, f"worker 1 sql-{alive} word", ex=60)
        world.web.sweep(*TWO_SWEEPS)
        assert [world.row(query)["status"] for query in (lost, alive, waits)] == ["failed", "running", "pending"]
        assert world.row(lost)["error_message"] == reaper.WORKER_LOST
        until(lambda: services.sql(busy) == "", 20, "the statement is cancelled")
    finally:
        statement.kill()
        statement.wait(10)


def test_a_synchronous_query_ends_only_after_its_own_limit(world: World) -> None:
    old, young = submitted(world), submitted(world)
    world.broker.client(0).delete("tenant-a")
    for query, seconds in ((old, 700), (young, 500)):
        world.prepared.services.sql(
            f"UPDATE query SET status = 'running', extra_json = '{{}}', start_time = start_time - {seconds}000 WHERE id = {query}"
        )
    world.web.sweep(*TWO_SWEEPS)
    assert (world.row(old)["status"], world.row(young)["status"]) == ("failed", "running")
    assert world.row(old)["error_message"] == reaper.REQUEST_LOST


def test_a_query_that_was_written_down_and_never_sent_fails(world: World) -> None:
    """Its request lost the metadata database, or died, in between."""
    unsent = submitted(world)
    world.broker.client(0).delete("tenant-a")
    world.prepared.services.sql(f"UPDATE query SET extra_json = '{{}}' WHERE id = {unsent}")
    world.web.sweep(*TWO_SWEEPS)
    assert (world.row(unsent)["status"], world.row(unsent)["error_message"]) == ("failed", reaper.NOT_SENT)


def deliver(world: World, queue: str) -> str:
    """Take a message as kombu does, and forget it, as a killed worker does; the delivery tag."""
    client = world.broker.client(0)
    message = client.rpop(queue)
    tag = json.loads(message)["properties"]["delivery_tag"]
    client.hset("unacked", tag, json.dumps([json.loads(message), queue, queue]))
    client.zadd("unacked_index", {tag: time.time()})
    return str(tag)


def test_a_message_that_no_worker_has_goes_back_where_it_is_taken_first(world: World) -> None:
    first, second, held = (submitted(world) for _ in range(3))
    for _ in (first, held):
        deliver(world, "tenant-a")
    # The second in the queue is now the third that was sent; a living worker has it.
    coordination = world.broker.client(world.plan.database("coordination").number)
    coordination.set("coordination:worker:w@h", json.dumps({"reserved": [f"sql-{second}"], "at": time.time()}), ex=300)
    coordination.zadd("coordination:workers", {"w@h": time.time()})
    world.broker.client(0).hset("unacked", "poison", "no message")
    world.broker.client(0).zadd("unacked_index", {"poison": 1.0})
    world.web.sweep(*TWO_SWEEPS)
    in_queue = [json.loads(message)["headers"] for message in world.broker.client(0).lrange("tenant-a", 0, -1)]
    assert [(headers["id"], headers.get("redelivered")) for headers in in_queue] == [
        (f"sql-{held}", None),
        (f"sql-{first}", True),
    ]
    assert world.broker.client(0).hlen("unacked") == world.broker.client(0).zcard("unacked_index") == 1
    assert {world.row(query)["status"] for query in (first, second, held)} == {"pending"}
    assert world.counted("superset_async_reaped_total") == {"message": 1}
    assert world.counted("superset_async_poison_total") == {"unacked": 1}


def test_a_chart_whose_message_is_lost_tells_its_browser(world: World) -> None:
    user = world.web.user("alice")
    lost, kept = world.web.chart(user, "lost-channel"), world.web.chart(world.web.user("bob"), "kept-channel")
    assert sorted(world.web.registered()) == sorted([lost["job_id"], kept["job_id"]])
    world.broker.client(0).delete("tenant-a")
    coordination = world.broker.client(world.plan.database("coordination").number)
    coordination.hset("coordination:jobs", mapping={"forged": "no JSON", "other": json.dumps({"metadata": {}})})
    world.web.sweep(*TWO_SWEEPS)
    (event,) = world.web.events("lost-channel")
    assert (event["job_id"], event["status"]) == (lost["job_id"], "error")
    assert event["errors"][0]["message"] == reaper.JOB_LOST
    assert world.web.events("kept-channel") == []
    assert world.web.registered() == [kept["job_id"]]
    assert world.counted("superset_async_poison_total") == {"jobs": 2}


def test_a_chart_that_nobody_waits_for_any_more_is_stopped(world: World) -> None:
    """Neither one whose page asks, nor one that nobody ever asked for, nor one that another page's chart follows."""
    user = world.web.user("alice")
    names = ("closed", "open", "never", "followed")
    jobs = {name: world.web.chart(user, f"{name}-tab")["job_id"] for name in names}
    coordination = world.broker.client(world.plan.database("coordination").number)
    for job_id in jobs.values():
        job = json.loads(coordination.hget("coordination:jobs", job_id))
        aged = {**job, "submitted_at": job["submitted_at"] - 1000}
        coordination.hset("coordination:jobs", job_id, json.dumps(aged))
    follower = {"channel_id": "late-tab", "job_id": "late", "user_id": user}
    coordination.rpush(f"coordination:followers:{jobs['followed']}", json.dumps([follower, "/late"]))
    for tab in ("closed-tab", "open-tab", "followed-tab", "late-tab"):
        assert world.web.events(tab) == []
    _close(coordination, "closed-tab", "followed-tab")
    world.web.sweep(*TWO_SWEEPS)
    (event,) = world.web.events("closed-tab")
    assert (event["job_id"], event["status"]) == (jobs["closed"], "error")
    assert event["errors"][0]["message"] == abandoned_charts.ABANDONED
    assert sorted(world.web.registered()) == sorted(jobs[name] for name in ("open", "never", "followed"))
    assert coordination.exists(f"coordination:abandoned:{jobs['closed']}") == 1
    _close(coordination, "late-tab")
    world.web.sweep(11.0)
    assert sorted(world.web.registered()) == sorted(jobs[name] for name in ("open", "never"))
    for tab in ("followed-tab", "late-tab"):
        assert [event["status"] for event in world.web.events(tab)] == ["error"]


def test_a_chart_is_stopped_by_its_own_page_and_by_no_other(world: World) -> None:
    user = world.web.user("alice")
    job, followed = (world.web.chart(user, f"{name}-page")["job_id"] for name in ("own", "followed"))
    coordination = world.broker.client(world.plan.database("coordination").number)
    follower = {"channel_id": "later-page", "job_id": "later", "user_id": user}
    coordination.rpush(f"coordination:followers:{followed}", json.dumps([follower, "/later"]))
    assert world.web.stop_chart(job, None) == [404, None]
    assert world.web.stop_chart(job, "other-page") == [404, None]
    assert sorted(world.web.registered()) == sorted([job, followed])
    assert world.web.stop_chart(job, "own-page") == [200, True]
    assert world.web.stop_chart(job, "own-page") == [404, None]
    (event,) = world.web.events("own-page")
    assert (event["status"], event["errors"][0]["message"]) == ("error", chart_stops.STOPPED)
    assert coordination.exists(f"coordination:abandoned:{job}") == 1
    # Another page waits for this one.
    assert world.web.stop_chart(followed, "followed-page") == [200, False]
    assert world.web.events("followed-page") == []
    assert world.web.registered() == [followed]


def _close(coordination: Any, *tabs: str) -> None:
    """As if these tabs had asked for their events last before more than a hidden tab's pause."""
    for tab in tabs:
        key = f"coordination:polled:{tab}"
        assert float(coordination.get(key)) > time.time() - abandoned_charts.SILENT_SECONDS
        coordination.set(key, time.time() - 2 * abandoned_charts.SILENT_SECONDS)


def test_a_broker_that_takes_nothing_is_said_at_once_and_leaves_nothing_pending(world: World) -> None:
    user = world.web.user("alice")
    kept = submitted(world)
    for fault, reason, word in (("stopped", "broker_down", "does not answer"), ("full", "broker_full", "memory is full")):
        if fault == "stopped":
            world.broker.kill()
        else:
            world.broker.client(0).config_set("maxmemory", 1)
        answer = world.web.submit("alice", "SELECT 2", client_id=f"same-{fault[:4]}")
        (error,) = answer["json"]["errors"]
        assert (answer["status"], answer["retry_after"], error["extra"]["reason"]) == (503, "10", reason), answer
        assert word in error["message"]
        failed = world.prepared.services.sql(f"SELECT status, error_message FROM query WHERE client_id = 'same-{fault[:4]}'")
        assert failed == f"failed|{error['message']}"
        assert world.web.chart(user, "channel") == {"refused": 503, "message": error["message"]}
        if fault == "stopped":
            world.broker.start()
        else:
            world.broker.client(0).config_set("maxmemory", 0)
        # As a browser does: the same query once more, when the broker is back.
        assert world.web.submit("alice", "SELECT 2", client_id=f"same-{fault[:4]}")["status"] == 202
    assert world.web.registered() == []
    assert world.waiting("tenant-a") == 3
    assert world.row(kept)["status"] == "pending"


@contextmanager
def silent(world: World) -> Generator[list[socket.socket]]:
    """Nobody answers at the broker's port, in the block: the connections that it has taken."""
    world.broker.kill()
    taken: list[socket.socket] = []
    with closing(socket.socket()) as hole:
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind(("127.0.0.1", world.broker.instance.port))
        hole.listen()

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(hole.accept()[0])

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        try:
            yield taken
        finally:
            # Wakes who waits in accept.
            hole.shutdown(socket.SHUT_RDWR)
            taking.join()
            for connection in taken:
                connection.close()
            hole.close()
            world.broker.start()


@pytest.mark.parametrize("kind", ["query", pytest.param("chart", marks=pytest.mark.further)])
def test_a_silent_broker_blocks_a_submission_for_one_timeout(world: World, kind: str) -> None:
    """Each wait is a connection to a server that does not answer. (The timeout itself takes seconds: it is redis-py's.)"""
    user = world.web.user("alice")
    with silent(world) as waits:
        if kind == "query":
            answer = world.web.submit("alice", "SELECT 1", client_id="silent")
            assert (answer["status"], answer["retry_after"]) == (503, "10")
            said = answer["json"]["errors"][0]["message"]
            row = world.prepared.services.sql("SELECT status, error_message FROM query WHERE client_id = 'silent'")
            assert row == f"failed|{said}"
        else:
            refused = world.web.chart(user, "channel")
            said = refused["message"]
            assert refused["refused"] == 503
        assert said.startswith("The broker does not answer")
        assert len(waits) == 1
    assert world.web.submit("alice", "SELECT 1")["status"] == 202


def test_beyond_the_bounds_a_submission_is_refused(world: World) -> None:
    user = world.web.user("alice")
    world.web.bounds(3, 100)
    taken = [submitted(world), submitted(world)]
    assert world.web.chart(user, "channel")["status"] == "pending"
    answer = world.web.submit("alice", "SELECT 1")
    (error,) = answer["json"]["errors"]
    assert (answer["status"], answer["retry_after"], error["error_type"]) == (429, "60", "ASYNC_WORKERS_ERROR")
    assert "3 queries wait in queue 'tenant-a'" in error["message"]
    assert world.web.chart(user, "channel")["refused"] == 429
    # Another queue has room; another user of a full one has not.
    submitted(world, "bob")
    world.web.bounds(100, 3)
    answer = world.web.submit("alice", "SELECT 1")
    assert (answer["status"], answer["retry_after"]) == (429, "5")
    assert "You have 3 queries waiting or running" in answer["json"]["errors"][0]["message"]
    assert world.waiting("tenant-a") == 3
    assert world.web.stop("alice", world.row(taken[0])["client_id"]) == 200
    submitted(world)
    assert world.counted("superset_async_refused_total") == {"tenant-a,queue_full": 2, "tenant-a,user_in_flight": 1}


@pytest.mark.parametrize("table", ["query", "superset_async_messages"])
def test_a_metadata_database_without_room_is_said_and_leaves_nothing_pending(world: World, table: str) -> None:
    """At the query's own row, and at the copy of its message: PostgreSQL's error, in words and without its files and SQL."""
    sql = world.prepared.services.sql
    error = 'could not extend file "base/5/16384": No space left on device'
    body = f"BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = '{error}'; END"
    sql(f"CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
    sql(f"CREATE TRIGGER no_room BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_room()")
    try:
        answer = world.web.submit("alice", "SELECT 1", client_id=f"full-{table[:5]}")
    finally:
        sql("DROP FUNCTION no_room() CASCADE")
    (said,) = answer["json"]["errors"]
    assert (answer["status"], answer["retry_after"]) == (503, "60")
    assert "The disk of the metadata database is full" in said["message"]
    assert "base/" not in json.dumps(answer["json"])
    left = sql(f"SELECT status || ': ' || error_message FROM query WHERE client_id = 'full-{table[:5]}'")
    assert left == ("" if table == "query" else f"failed: {said['message']}")
    assert world.waiting("tenant-a") == 0
    submitted(world)


def test_what_is_submitted_in_the_same_moment_is_counted_one_after_the_other(world: World) -> None:
    """As many as the bound are taken, neither more nor fewer: charts, queries, and both together."""
    world.web.bounds(1000, 5)
    assert world.web.at_once("alice", charts=30, queries=0) == [202] * 5 + [429] * 25
    # What has ended makes room, and another user has room of his own.
    assert world.web.at_once("bob", charts=0, queries=12) == [202] * 5 + [429] * 7
    world.web.end_charts()
    assert world.web.at_once("alice", charts=10, queries=10) == [202] * 5 + [429] * 15
    assert len(world.web.registered()) + world.waiting("tenant-a") >= 5


def test_guests_without_cookies_are_counted_by_their_tokens(world: World) -> None:
    world.web.bounds(1000, 5)
    token = {"user": {"username": "alice"}, "resources": [], "rls_rules": [], "iat": 1.5}
    other = {**token, "iat": 2.5}
    assert world.web.guests_at_once([token] * 24) == [202] * 5 + [429] * 19
    assert world.web.guests_at_once([token, other, other]) == [202, 202, 429]
    # A guest named like a user is not counted as that user.
    assert world.web.at_once("alice", charts=1, queries=0) == [202]
    world.web.end_charts()
    assert world.web.guests_at_once([token] * 6) == [202] * 5 + [429]


def test_a_pending_query_can_be_stopped(world: World) -> None:
    query = submitted(world)
    assert world.web.stop("alice", world.row(query)["client_id"]) == 200
    assert world.row(query)["status"] == "stopped"
    assert world.row(query)["end_time"]
    world.web.sweep(*TWO_SWEEPS)
    assert world.row(query)["status"] == "stopped"


def test_what_is_refused_after_it_was_written_down_has_ended_with_the_error_that_its_user_saw(world: World) -> None:
    """A typing error, and what no parser can end: neither counts as in flight."""
    world.web.bounds(1000, 2)
    refused = (
        ("alice", "selec 1", "parsing"),
        ("alice", "SELECT * FROM (SELECT 1", "parsing"),
    )
    since = int(time.time() * 1000) - 1000
    for number, (user, sql, word) in enumerate(refused):
        answer = world.web.submit(user, sql, client_id=f"refused-{number}")
        assert 400 <= answer["status"] < 500, answer
        saw = "\n".join(error["message"] for error in answer["json"]["errors"])
        assert word in saw
        row = world.prepared.services.sql(f"SELECT id FROM query WHERE client_id = 'refused-{number}'")
        ended = world.row(int(row))
        assert (ended["status"], ended["error_message"]) == ("failed", saw)
        assert [error["message"] for error in json.loads(ended["extra_json"])["errors"]] == saw.splitlines()
        assert ended["end_time"]
        assert world.web.changed(user, since)[f"refused-{number}"] == "failed"
    assert world.waiting("tenant-a") == 0
    for _ in range(2):
        submitted(world)
    assert world.web.submit("alice", "SELECT 1")["status"] == 429


@pytest.mark.parametrize("late_seconds", [600, -7200])
def test_a_process_with_a_wrong_clock_writes_times_by_the_databases(world: World, late_seconds: float) -> None:
    query = submitted(world)
    now = "SELECT extract(epoch from clock_timestamp()) * 1000"
    before = float(world.prepared.services.sql(now))
    (statement,) = world.web.end_by_own_clock(query, late_seconds)
    after = float(world.prepared.services.sql(now))
    row = world.row(query)
    assert before <= row["start_running_time"] <= after
    assert before <= row["end_time"] <= after
    # No parameter of the statement, which would be the process's own.
    assert "changed_on=timezone('utc', clock_timestamp())" in statement
    assert world.web.changed("alice", int(before))[row["client_id"]] == "success"
