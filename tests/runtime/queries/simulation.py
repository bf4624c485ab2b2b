"""A small platform whose clock is told.

Deliveries, their keepers, delayed messages and the reaper are the real ones. Redis is in memory, executes the real scripts, loses
its last second, and is away; the metadata database is SQLite, and executes the real SQL of executions and copies.

Deliveries are greenlets, of which one runs at a time: each stops at every question to Redis or to the database, so that whoever
drives the simulation decides what comes between two of them, and where a process dies.
"""

from __future__ import annotations

import ast
import copy
import json
import sqlite3
import threading
import time as real_time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fakeredis
import pytest
from celery.exceptions import Ignore, Reject
from fakeredis import _helpers as fake_helpers
from fakeredis._socket import _base as fake_socket
from greenlet import getcurrent, greenlet
from redis.exceptions import OutOfMemoryError, RedisError

from runtime.broker import delayed_messages, fork_safety, reserved_tasks, signatures
from runtime.broker.messages import Messages
from runtime.broker.signatures import Signatures
from runtime.broker.task_messages import TaskMessage
from runtime.environment import coordination, counters, leases, metadata_database, process_topology
from runtime.queries import (
    completions,
    deliveries,
    execution_leases,
    executions,
    final_states,
    interfaces,
    outbox,
    query_tasks,
    reaper,
)
from runtime.queries.interfaces import OPEN_STATES, Identified, OpenQuery, Seen
from runtime.tenants.router import SQL_LAB_TASK

#: Of the simulation: what may happen at one moment is decided step by step, then this passes.
TICK = 0.5
QUEUE = "q"
MIGRATIONS = Path(executions.__file__).parent / "migrations/versions"
PACE = reaper.Pace(every=10, apart=10, quiet=25, unsent=30, synchronous=600)
#: What the processes sign their messages with.
SIGNATURES = Signatures(1, {1: b"of the simulation"})
BOUNDS = SimpleNamespace(max_retries=3, retry_backoff_seconds=8)


def own_tables() -> list[str]:
    """The SQL of all migrations, whose modules need Alembic, which Superset's environment has."""
    found: list[str] = []
    for path in sorted(MIGRATIONS.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STATEMENTS":
                found += ast.literal_eval(node.value)
    return found


class KilledError(BaseException):
    """The process was killed: whatever it still does reaches nobody."""


class Actor:
    """One delivery in a process of its own, that goes on when it is told to, up to its next question to anybody."""

    def __init__(self, world: World, worker: str, pid: int, task_id: str, tag: str, body: Callable[[], None]) -> None:
        self.world, self.worker, self.pid, self.task_id, self.tag = world, worker, pid, task_id, tag
        self.keeper = leases.Keeper()
        # Renewed by the simulation.
        self.keeper._thread = threading.current_thread()
        self.alive, self.done = True, False
        #: The id of the query that it executes; whether it waits for the statement; and whether that may end.
        self.executing: int | None = None
        self.waits = False
        self.may_finish = False
        self.wake_at = 0.0
        self._body = body
        self._greenlet = greenlet(self._run)

    def _run(self) -> None:
        try:
            if self.alive:
                self._body()
        except KilledError:
            pass
        except BaseException as error:
            self.world.violations.append(f"delivery of {self.task_id} ended with {error!r}")
        self.done = True
        self.executing = None

    def point(self) -> None:
        """In it: stop here until it is told to go on."""
        if self.alive:
            cast(Any, self._greenlet.parent).switch()
        if not self.alive:
            raise KilledError

    @property
    def runnable(self) -> bool:
        """Whether it has something to do at this time."""
        waits = self.waits and not self.may_finish
        return self.alive and not self.done and not waits and self.world.now >= self.wake_at

    def step(self) -> None:
        """Outside: let it go on to its next question."""
        before, self.world.actor = self.world.actor, self
        try:
            self._greenlet.parent = getcurrent()
            self._greenlet.switch()
        finally:
            self.world.actor = before

    def kill(self) -> None:
        """Its process ends, here."""
        self.alive = False
        self.executing = None
        if not self.done:
            self.step()


class Client(fakeredis.FakeStrictRedis):
    """A client at whose every question its actor stops first."""

    world: World

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.world.point()
        return super().execute_command(*args, **options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe = super().pipeline(*args, **options)
        execute = pipe.execute

        def stop_and_execute(*args: Any, **options: Any) -> Any:
            self.world.point()
            return execute(*args, **options)

        pipe.execute = stop_and_execute
        return pipe


class Connection:
    """SQLite as psycopg2's SQL sees PostgreSQL, as far as executions and copies need it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def exec_driver_sql(self, statement: str, parameters: Any = ()) -> Any:
        return self._database.execute(statement.replace("%s", "?"), tuple(parameters))


@dataclass
class Identification:
    """Whose a query is, on the simulation's table of queries."""

    world: World

    def query(self, connection: Connection, query_id: int, sql: str) -> Identified | None:
        row = connection.exec_driver_sql("SELECT status, error, writes FROM query WHERE id = ?", (query_id,)).fetchone()
        return Identified(row[0], row[1], "u", "d", writes=bool(row[2]), submitted_at=0.0) if row else None

    def open_queries(self, connection: Connection) -> list[OpenQuery]:
        rows = connection.exec_driver_sql("SELECT id, status, at FROM query WHERE status IN ('pending', 'running')")
        return [OpenQuery(row[0], row[1] == "running", f"sql-{row[0]}", self.world.now - row[2]) for row in rows]


class Fence:
    """The steps of an open query, on the same."""

    def begin(self, connection: Connection, query_id: int) -> bool:
        done = connection.exec_driver_sql(
            "UPDATE query SET status = 'running' WHERE id = ? AND status IN ('pending', 'running')", (query_id,)
        )
        return bool(done.rowcount)


@dataclass
class Ending:
    """How a query ends, on the same."""

    world: World

    def query(
        self, connection: Connection, query_id: int, message: str, *_: object, states: Sequence[str] = OPEN_STATES
    ) -> bool:
        self.world.declared_ended(query_id, message)
        marks = ",".join("?" * len(states))
        done = connection.exec_driver_sql(
            f"UPDATE query SET status = 'failed', error = ? WHERE id = ? AND status IN ({marks})",
            (message, query_id, *states),
        )
        return bool(done.rowcount)

    def state(self, connection: Connection, query_id: int) -> tuple[str | None, str]:
        row = connection.exec_driver_sql("SELECT status, error FROM query WHERE id = ?", (query_id,)).fetchone()
        return (row[0], row[1]) if row else (None, "")

    def expect(self) -> None:
        """What cancels is always there."""

    def cancel(self, query_ids: Sequence[int], seconds: float) -> Mapping[int, Seen]:
        self.world.cancelled |= set(query_ids)
        return dict.fromkeys(query_ids, self.world.seen)


class World:
    """The platform: `submit`, `deliver`, `step`, `advance`, and what goes wrong. `violations` must stay empty."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        #: Which runs.
        self.actor: Actor | None = None
        self.violations: list[str] = []
        self.actors: list[Actor] = []
        self.cancelled: set[int] = set()
        #: What is seen of a statement that is cancelled.
        self.seen: Seen = "gone"
        self.begun: dict[int, int] = {}
        #: What was delayed and is sent.
        self.sent: list[TaskMessage] = []
        self.writes: set[int] = set()
        self._numbers, self._redis_back = count(1), 0.0
        self._server = fakeredis.FakeServer(server_type="valkey")
        self._history: list[dict[int, Any]] = []
        self._workers = {f"w{number}@h": True for number in (1, 2)}
        self._database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._database.create_function("now", 0, lambda: self.now)
        self._database.create_function("to_timestamp", 1, lambda seconds: seconds)
        self._database.execute(
            "CREATE TABLE query (id integer primary key, status text, error text, writes int, at real, user_id int)"
        )
        for statement in own_tables():
            self._database.execute(statement.replace("DEFAULT now()", "DEFAULT 0"))
        self._broker, self._client = self._connection(0), self._connection(1)
        self._patch(patch)
        self.reaper = reaper.Reaper(Messages(self._broker, "", [QUEUE]), PACE, lambda: self.now)
        self.reaper_lives = True
        self._next_sweep, self._next_publish = self.now, self.now
        self._remember()

    def _connection(self, number: int) -> Any:
        client = Client(server=self._server, db=number)
        client.world = self
        return client

    def _patch(self, patch: pytest.MonkeyPatch) -> None:
        clock = _Clock(self)
        for module in (leases, delayed_messages, reaper, deliveries, fake_helpers, fake_socket):
            patch.setattr(module, "time", clock)
        patch.setattr(coordination, "client", lambda: self._client)
        patch.setattr(coordination, "key", lambda *parts: ":".join(parts))
        patch.setattr(counters, "count", lambda *_, **__: None)
        patch.setattr(completions, "count", lambda *_: None)
        patch.setattr(metadata_database, "transaction", self.transaction)
        for read in ("started", "current"):
            patch.setattr(process_topology, read, lambda: SimpleNamespace(resilience=BOUNDS))
        patch.setattr(signatures, "of_process", lambda: SIGNATURES)
        patch.setattr(TaskMessage, "send", lambda message, app: self._sent(message))
        patch.setattr(fork_safety, "undisturbed", nullcontext)
        patch.setattr(leases, "keeper", _Keepers(self))
        patch.setattr(deliveries.os, "getpid", self._pid)
        patch.setattr(deliveries, "tenant_of_queue", lambda queue: "")
        identification, ending, fence = cast(Any, Identification(self)), cast(Any, Ending(self)), cast(Any, Fence())
        superset = interfaces.Superset(identification, fence, ending)
        for module in (deliveries, reaper, final_states):
            patch.setattr(module, "superset", lambda: superset)

    def _pid(self) -> int:
        return self.actor.pid if self.actor else 1

    def point(self) -> None:
        """A question to Redis or to the database: who asks it stops before."""
        if self.actor is not None:
            self.actor.point()

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """All or nothing, and nobody in between."""
        self.point()
        self._database.execute("BEGIN")
        try:
            yield Connection(self._database)
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    # What users, workers and the reaper do.

    def submit(self, *, writes: bool) -> int:
        """A query's row, its copy and its message."""
        query_id = next(self._numbers)
        self._database.execute("INSERT INTO query VALUES (?, 'pending', '', ?, ?, 1)", (query_id, writes, self.now))
        task = TaskMessage(SQL_LAB_TASK, f"sql-{query_id}", [], {}, QUEUE, None, None, {})
        with self.transaction() as connection:
            outbox.keep(connection, query_id, task)
        if writes:
            self.writes.add(query_id)
        with suppress(RedisError):
            self._send(task.task_id)
        return query_id

    def _sent(self, message: TaskMessage) -> None:
        self.point()
        self.sent.append(message)
        self._send(message.task_id)

    def _send(self, task_id: str) -> None:
        tag = f"tag-{next(self._numbers)}"
        message = {"headers": {"id": task_id}, "properties": {"delivery_tag": tag, "delivery_info": {}}}
        self._broker.lpush(QUEUE, json.dumps(message))

    def deliver(self, worker: str = "w1@h") -> Actor | None:
        """The next message goes to a child of `worker`; None where there is none."""
        try:
            text = self._broker.rpop(QUEUE)
            if text is None or not self._workers[worker]:
                if text is not None:
                    self._broker.rpush(QUEUE, text)
                return None
            message = json.loads(text)
            tag, task_id = f"tag-{next(self._numbers)}", message["headers"]["id"]
            self._broker.hset("unacked", tag, json.dumps([message, QUEUE, QUEUE]))
            self._broker.zadd("unacked_index", {tag: self.now})
        except RedisError:
            return None
        actor = Actor(self, worker, next(self._numbers), task_id, tag, lambda: self._handle(actor))
        self.actors.append(actor)
        return actor

    def sender(self) -> Actor:
        """A worker's parent that sends what is due, step by step."""
        actor = Actor(self, "w1@h", next(self._numbers), "", "", self._send_due)
        self.actors.append(actor)
        return actor

    def _send_due(self) -> None:
        with suppress(RedisError):
            delayed_messages.send_due(None)

    def _handle(self, actor: Actor) -> None:
        subject = actor.task_id.removeprefix(query_tasks.SQL_TASK)
        request = SimpleNamespace(
            hostname=actor.worker, id=actor.task_id, delivery_info={"routing_key": QUEUE}, timelimit=None
        )
        task: Any = SimpleNamespace(name=SQL_LAB_TASK, request=request, soft_time_limit=0)
        work = query_tasks.Work("sql", subject, "sql", {}, None, "u", None)
        requeue = False
        try:
            deliveries.Delivery(task, work, (), {}).handle(lambda: self._execute(actor, int(subject)))
        except Ignore:
            pass
        except Reject:
            requeue = True
        with suppress(RedisError):
            self._acknowledge(actor, requeue=requeue)

    def send_again(self, task_id: str) -> None:
        """A message that is in use comes a second time."""
        with suppress(RedisError):
            self._send(task_id)

    def _acknowledge(self, actor: Actor, *, requeue: bool) -> None:
        pipe = self._broker.pipeline(transaction=True)
        pipe.hdel("unacked", actor.tag)
        pipe.zrem("unacked_index", actor.tag)
        pipe.execute()
        if requeue:
            self._send(actor.task_id)

    def _execute(self, actor: Actor, query_id: int) -> None:
        """The statement, until it may finish."""
        others = [it for it in self.actors if it.executing == query_id and it is not actor]
        if others:
            self.violations.append(f"query {query_id} is executed twice at one time")
        if self.status(query_id) not in OPEN_STATES:
            self.violations.append(f"query {query_id} is executed after it has ended")
        self.begun[query_id] = self.begun.get(query_id, 0) + 1
        if query_id in self.writes and self.begun[query_id] > 1:
            self.violations.append(f"write {query_id} is executed a second time")
        actor.executing = query_id
        with self.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE query SET status = 'running' WHERE id = ? AND status = 'pending'", (query_id,)
            )
        actor.waits = True
        while not actor.may_finish:
            actor.point()
        actor.executing = None
        status = "failed" if query_id in self.cancelled else "success"
        with self.transaction() as connection:
            connection.exec_driver_sql("UPDATE query SET status = ? WHERE id = ? AND status = 'running'", (status, query_id))

    def declared_ended(self, query_id: int, message: str) -> None:
        """Somebody says of a query that it has ended."""
        own = self.actor
        lost = message.startswith((query_tasks.LOST_WRITE, reaper.WORKER_LOST)) or "times in a row" in message
        if lost and self.begun.get(query_id) and query_id not in self.cancelled:
            self.violations.append(f"query {query_id} is declared lost, and its statement was not cancelled before")
        for actor in self.actors:
            if actor.executing == query_id and actor is not own:
                self.violations.append(f"query {query_id} is executed, and is declared: {message}")

    # Time, and what goes wrong.

    def run(self) -> None:
        """Let all go on until each waits for something."""
        while ready := [actor for actor in self.actors if actor.runnable]:
            for actor in ready:
                if actor.runnable:
                    actor.step()
        self.actors = [actor for actor in self.actors if actor.alive and not actor.done]

    def tick(self) -> None:
        """Time passes, and nobody does anything."""
        self.now += TICK
        if self.now >= self._redis_back:
            self._server.connected = True
        self._remember()

    def advance(self, seconds: float) -> None:
        """Let time pass, in which everybody does what they do all the time."""
        until = self.now + seconds
        while self.now < until:
            self.tick()
            for actor in self.actors:
                if self.now % leases.RENEW_SECONDS < TICK:
                    actor.keeper.renew_all()
            with suppress(RedisError):
                delayed_messages.send_due(None)
            if self.now >= self._next_publish:
                self._publish()
            if self.now >= self._next_sweep and self.reaper_lives:
                self._next_sweep = self.now + PACE.every
                with suppress(RedisError):
                    self.reaper.sweep()
            self.run()

    def _publish(self) -> None:
        self._next_publish = self.now + reserved_tasks.PUBLISH_SECONDS
        for worker in [name for name, lives in self._workers.items() if lives]:
            held = frozenset(actor.task_id for actor in self.actors if actor.worker == worker)
            with suppress(RedisError):
                reserved_tasks.publish(worker, held, self.now)

    def finish(self, actor: Actor) -> None:
        """Its statement ends."""
        actor.may_finish = True

    def kill_child(self, actor: Actor) -> None:
        """SIGKILL; its parent says so, and gives its message back."""
        actor.kill()
        with suppress(RedisError):
            subject = actor.task_id.removeprefix(query_tasks.SQL_TASK)
            execution_leases.bury("sql", subject, actor.worker, actor.pid)
        with suppress(RedisError):
            self._acknowledge(actor, requeue=True)
        self.actors.remove(actor)

    def kill_worker(self, worker: str) -> None:
        """SIGKILL of all its processes."""
        for actor in [it for it in self.actors if it.worker == worker]:
            actor.kill()
            self.actors.remove(actor)
        self._workers[worker] = False

    def start_worker(self, worker: str) -> None:
        """It is there again, and has nothing."""
        self._workers[worker] = True

    def crash_redis(self, lost: float, away: float) -> None:
        """Redis restarts without what it was told in the last `lost` seconds, after `away` seconds."""
        state = self._history[-1 - min(int(lost / TICK), len(self._history) - 1)]
        for number, kept in copy.deepcopy(state).items():
            database = self._server.dbs[number]
            database._dict, database._expiry_heap = kept
        self._server.script_cache.clear()
        self._history = self._history[-1:]
        self._history[0] = copy.deepcopy(state)
        self._redis_back = self.now + away
        self._server.connected = away == 0

    def _remember(self) -> None:
        kept = {number: (database._dict, database._expiry_heap) for number, database in self._server.dbs.items()}
        self._history = [*self._history[-4:], copy.deepcopy(kept)]

    def problems(self) -> list[str]:
        """What was seen to be wrong, and what executes without a record that says so."""
        found = list(self.violations)
        for actor in self.actors:
            if actor.executing is not None and actor.waits:
                asked = f"SELECT count(*) FROM {executions.TABLE} WHERE subject = ? AND ended_at IS NULL"
                if self._database.execute(asked, (str(actor.executing),)).fetchone()[0] != 1:
                    found.append(f"query {actor.executing} is executed, and its attempt has ended")
        return found

    def refuse_writes(self, patch: pytest.MonkeyPatch) -> None:
        """Redis is at `maxmemory`: it takes no SET."""

        def refuse(*_: object, **__: object) -> None:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

        patch.setattr(self._client, "set", refuse)

    def unacknowledged(self) -> int:
        """Messages that were delivered and not acknowledged."""
        return int(self._broker.hlen("unacked"))

    def suspected(self) -> bool:
        """Whether the reaper's last sweep found anything that looks lost."""
        return bool(self.reaper._suspects._since)

    def waiting(self) -> frozenset[str]:
        """The tasks that are delayed."""
        return delayed_messages.waiting()

    def status(self, query_id: int) -> str:
        """Of a query's row."""
        return str(self._database.execute("SELECT status FROM query WHERE id = ?", (query_id,)).fetchone()[0])

    def open(self) -> list[int]:
        """The queries that have not ended."""
        return [row[0] for row in self._database.execute("SELECT id FROM query WHERE status IN ('pending', 'running')")]

    def settle(self) -> None:
        """Nothing goes wrong any more: all must end."""
        for worker in self._workers:
            self.start_worker(worker)
        for _ in range(40):
            while self.deliver() is not None:
                pass
            for actor in self.actors:
                self.finish(actor)
            self.advance(5)
            if not self.open() and not self.actors:
                return
        self.violations.append(f"queries {self.open()} never end")

    def close(self) -> None:
        """End what runs."""
        for actor in self.actors:
            actor.kill()
        self._database.close()


class _Clock:
    """The module `time`, whose clocks are the world's."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time(self) -> float:
        return self._world.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        actor = self._world.actor
        if actor is None:
            raise AssertionError("only a delivery may wait")
        actor.wake_at = self._world.now + seconds
        actor.point()

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


class _Keepers:
    """The keeper of the process that asks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(cast("Actor", self._world.actor).keeper, name)


@contextmanager
def world() -> Generator[World]:
    """A platform for one block."""
    with pytest.MonkeyPatch.context() as patch:
        made = World(patch)
        try:
            yield made
        finally:
            made.close()
