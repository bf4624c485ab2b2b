"""A worker executes what processes of its stack have sent, and nothing else that is in the broker; and obeys who only asks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json
from redis import Redis
from redis.exceptions import ResponseError

from runtime.broker import delayed_messages, signatures
from runtime.broker.queues import readdressed
from runtime.broker.remote_control import ALLOWED, without_secrets
from runtime.broker.signatures import HEADER, SignatureError, Signatures
from runtime.broker.task_messages import TaskMessage
from runtime.environment import coordination, process_topology
from runtime.environment.redis_databases import located
from tests.runtime.conftest import PROJECT
from tests.runtime.observability.test_exporter import Server, free_port, until
from tests.runtime.stacks import REDIS_PASSWORDS, environment, topology
from topology import commands, metric_names
from topology.model import Topology

Message = dict[str, Any]
KEYS = {1: b"a" * 64, 2: b"b" * 64, 3: b"c" * 64, 4: b"d" * 64}


def of_generation(number: int, *, accept_unsigned: bool = False) -> Signatures:
    """The signatures of a process whose topology has this number."""
    held = {each: KEYS[each] for each in (number - 1, number, number + 1) if each in KEYS}
    return Signatures(number, held, accept_unsigned=accept_unsigned)


def message_of(headers: object, body: object = "[]", **changed: object) -> Message:
    """As much of a message as is signed."""
    about = {"content-type": "application/json", "content-encoding": "utf-8", "properties": {"body_encoding": "base64"}}
    return {"headers": headers, "body": body, **about, **changed}


def arrived(message: Message, signature: str) -> Message:
    """The message after its way through the broker."""
    return cast(
        Message, kombu_json.loads(kombu_json.dumps({**message, "headers": {**message["headers"], HEADER: signature}}))
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates() | st.uuids(),
    lambda each: st.lists(each, max_size=3) | st.tuples(each) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=6,
)
headers = st.dictionaries(st.text(min_size=1).filter(lambda name: name not in (HEADER, "redelivered")), values, max_size=5)


@given(headers=headers, body=st.text(), other=values)
def test_what_is_sent_is_taken_and_no_other_header_or_body_is(headers: dict[str, Any], body: str, other: Any) -> None:
    message = message_of(headers, body)
    signature = of_generation(2).of_message(message)
    taken = arrived(message, signature)
    for number in (1, 2, 3):
        of_generation(number).check_message(taken)
    # kombu's own mark of a message that it delivers again, and an address that it moves to.
    again = {
        **taken,
        "headers": {**taken["headers"], "redelivered": True},
        "properties": {"body_encoding": "base64", "x": 1},
    }
    of_generation(2).check_message(again)
    changed: list[Message] = [
        {**taken, "headers": {**taken["headers"], "superset_async_tenant": [other]}},
        {**taken, "body": body + " "},
        {**taken, "content-type": "application/x-python-serialize"},
        {**taken, "content-encoding": "binary"},
        {**taken, "properties": {"body_encoding": None}},
        {**taken, "headers": {**taken["headers"], HEADER: f"1:{signature.partition(':')[2]}"}},
    ]
    changed += [
        {**taken, "headers": {name: each for name, each in taken["headers"].items() if name != gone}} for gone in headers
    ]
    for each in changed:
        with pytest.raises(SignatureError):
            of_generation(2).check_message(each)


@pytest.mark.parametrize(
    "signature", [None, "", "1", "1:", "9:x", "x:y", "²:x", "1:é", 7, [], {"a": 1}, "99999999999999999999:x"]
)
def test_what_is_no_signature_is_refused(signature: object) -> None:
    for number in (1, 2):
        with pytest.raises(SignatureError):
            of_generation(number).check_message(message_of({"task": "t", HEADER: signature}))
    for none in (None, 7, [], {}, message_of(None), message_of([]), message_of({}, properties=None)):
        with pytest.raises(SignatureError):
            of_generation(1).check_message(none)


def test_a_rollout_to_the_next_key_refuses_nothing_and_the_one_after_refuses_the_first() -> None:
    message = message_of({"task": "t"})

    def taken(sent_by: int, taken_by: int) -> bool:
        try:
            of_generation(taken_by).check_message(arrived(message, of_generation(sent_by).of_message(message)))
        except SignatureError:
            return False
        return True

    assert {(a, b): taken(a, b) for a in (1, 2, 3) for b in (1, 2, 3)} == {
        (a, b): abs(a - b) <= 1 for a in (1, 2, 3) for b in (1, 2, 3)
    }


def test_unsigned_messages_are_taken_only_where_the_stack_says_so_and_a_wrong_signature_never() -> None:
    of_generation(1, accept_unsigned=True).check_message(message_of({"task": "t"}))
    with pytest.raises(SignatureError):
        of_generation(1, accept_unsigned=True).check_message(message_of({"task": "t", HEADER: "1:00"}))


@dataclass
class World:
    """A server with the stack's users, and a worker of the signed application."""

    server: Server
    plan: Topology
    env: dict[str, str]
    log: Path
    operator: Any
    sent: int = field(default=0)

    def send(self, task: str = "good", word: str = "x", **changes: str) -> Message:
        """A message, as a process of the stack sends it, from a queue that nobody listens to."""
        program = (
            "import json, sys; from tests.runtime.broker.signed_process import app; task, word = sys.argv[1:]; "
            "app.send_task(task, args=[word], queue='other', ignore_result=True, headers={'superset_async_tenant': 'a'})"
        )
        subprocess.run([sys.executable, "-c", program, task, word], env=self.env | changes, cwd=PROJECT, check=True)
        message: Message = json.loads(self.operator.rpop("other"))
        message["properties"]["delivery_info"] = {"exchange": "", "routing_key": "celery"}
        return message

    def put(self, message: object) -> None:
        """Into the worker's queue, whoever wrote it."""
        self.operator.lpush("celery", message if isinstance(message, bytes) else json.dumps(message))

    def ran(self) -> list[str]:
        """What ran, in its order."""
        return [word.decode() for word in self.operator.lrange("ran", 0, -1)]

    def counted(self) -> Mapping[str, int]:
        """Messages and commands that were refused, by where."""
        database = located(self.plan, "coordination", "")
        connection = cast(
            Any, Redis(port=self.server.port, db=database.number, username="operator", password="operator-password")
        )
        counters = connection.hgetall(f"{database.prefix}counters")
        return {
            json.loads(each)[1]["where"]: int(value)
            for each, value in counters.items()
            if metric_names.POISON in each.decode()
        }

    def url(self, role: str) -> str:
        """The broker as a user of the stack."""
        user = next(user for each, user in self.plan.redis_users().items() if each == role)
        return located(self.plan, "broker", REDIS_PASSWORDS[user.role], user.role).url

    def celery(self, role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Celery's command line with nothing but the broker's URL."""
        command = [sys.executable, "-m", "celery", f"--broker={self.url(role)}", *arguments]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.log.parent)}
        return subprocess.run(command, env=env, cwd=self.log.parent, check=False, capture_output=True, text=True)


@contextmanager
def started(folder: Path, accept_unsigned: bool = False) -> Generator[World]:
    server = Server(folder, free_port())
    server.start()
    plan = topology(
        "multi-tenant",
        platform="local",
        local={"redis_port": server.port},
        celery={"accept_unsigned_messages": accept_unsigned},
    )
    (folder / "topology.json").write_text(plan.model_dump_json())
    env = {
        **os.environ,
        **environment(plan, "worker"),
        commands.TOPOLOGY_ENV: str(folder / "topology.json"),
        "BROKER_URL": f"redis://operator:operator-password@127.0.0.1:{server.port}/0",
        "PYTHONPATH": str(PROJECT),
    }
    log = folder / "worker.log"
    with log.open("w") as output:
        arguments = ["--app=tests.runtime.broker.signed_process", "worker", "--concurrency=1", "--without-gossip", "-Ofair"]
        command = [sys.executable, "-m", "celery", *arguments, "--without-mingle", "--loglevel=INFO"]
        worker = subprocess.Popen(command, env=env, cwd=PROJECT, stdout=output, stderr=output)
    try:
        until(lambda: " ready." in log.read_text(), f"the worker is ready: {log}", 90)
        operator = cast(Any, Redis(port=server.port, username="operator", password="operator-password"))
        yield World(server, plan, env, log, operator)
        assert worker.poll() is None
    finally:
        worker.terminate()
        worker.wait(60)
        server.kill()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with started(tmp_path_factory.mktemp("signed")) as found:
        yield found


def encoded(value: object) -> str:
    """A message's body."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def with_header(**changed: object) -> Callable[[Message], Message]:
    """The message with other headers."""
    return lambda message: {**message, "headers": {**message["headers"], **changed}}


def of_protocol_1(message: Message) -> Message:
    """Celery's older form, which has the task in its body and no headers."""
    body = {"task": "good", "id": "1", "args": ["forged"], "kwargs": {}, "retries": 0, "eta": None, "expires": None}
    return {**message, "headers": {}, "body": encoded(body)}


#: What somebody who can write to the broker makes of a message that he has read there.
FORGERIES: dict[str, Callable[[Message], Message]] = {
    "without a signature": lambda message: {
        **message,
        "headers": {name: value for name, value in message["headers"].items() if name != HEADER},
        "body": encoded([["forged"], {}, {}]),
    },
    "other arguments": lambda message: {**message, "body": encoded([["forged"], {}, {}])},
    "another task": with_header(task="other"),
    "another id": with_header(id="sql-1"),
    "another tenant": with_header(superset_async_tenant="b"),
    "other limits": with_header(timelimit=[1e9, 1e9]),
    "an end that is past": with_header(expires="2001-01-01T00:00:00+00:00"),
    "protocol 1": of_protocol_1,
    "a callback": lambda message: {
        **message,
        "body": encoded([["x"], {}, {"callbacks": [{"task": "other", "args": ["y"]}]}]),
    },
    "another key's number": lambda message: {
        **message,
        "headers": {**message["headers"], HEADER: "2" + message["headers"][HEADER][1:]},
    },
    "read as a program": lambda message: {
        **message,
        "content-type": "application/x-python-serialize",
        "content-encoding": "binary",
    },
}


@pytest.mark.services
def test_forged_messages_are_refused_unread_and_counted_and_what_was_sent_is_executed(world: World) -> None:
    good = world.send(word="sent")
    for forge in FORGERIES.values():
        world.put(forge(json.loads(json.dumps(good))))
    # As kombu gives a message back, and as a retired queue's is moved.
    again = json.loads(json.dumps(good))
    again["headers"]["redelivered"] = again["properties"]["delivery_info"]["redelivered"] = True
    world.put(again)
    world.put(readdressed(json.dumps(good).encode(), "celery"))
    world.put(world.send(word="compressed", COMPRESSION="gzip"))
    until(lambda: len(world.ran()) >= 3, f"all that was sent ran: {world.log}", 60)
    assert world.ran() == ["sent", "sent", "compressed"]
    assert world.counted() == {"signature": len(FORGERIES)}
    until(lambda: world.operator.hlen("unacked") == world.operator.llen("celery") == 0, "nothing comes again", 60)
    assert world.log.read_text().count("refused unread") == len(FORGERIES)
    assert "forged" not in world.log.read_text()


@pytest.mark.services
def test_a_release_that_does_not_sign_hands_over_where_the_stack_says_so(tmp_path: Path) -> None:
    with started(tmp_path, accept_unsigned=True) as world:
        good = world.send(word="of the release before")
        del good["headers"][HEADER]
        world.put(good)
        world.put(with_header(task="other")(world.send()))
        until(lambda: world.counted() == {"signature": 1}, "a wrong signature is refused all the same", 60)
        assert world.ran() == ["of the release before"]


@pytest.mark.services
def test_what_waits_for_its_time_is_signed_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that sent what lies there would sign it."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    for cached in (process_topology.started, signatures.of_process):
        cached.cache_clear()
    coordination.reset()
    sent: list[str] = []
    monkeypatch.setattr(TaskMessage, "send", lambda self, app: sent.append(self.task_id))
    try:
        delayed_messages.send_later(TaskMessage("good", "mine", ["x"], {}, "celery", None, None, {}), 0)
        forged = TaskMessage("good", "forged", ["x"], {}, "celery", None, None, {}).to_json()
        key = coordination.key(delayed_messages.MESSAGES)
        mine = cast(bytes, coordination.client().hget(key, "mine"))
        for number, text in enumerate((f"w {forged}", f"w 1:00 {forged}", f"{mine.decode().rpartition(' {')[0]} {forged}")):
            coordination.client().hset(key, f"forged-{number}", text)
            coordination.client().zadd(coordination.key(delayed_messages.DELAYED), {f"forged-{number}": time.time()})
        delayed_messages.send_due(None)
        assert sent == ["mine"]
        assert delayed_messages.waiting() == frozenset()
        assert not coordination.client().exists(key)
    finally:
        for cached in (process_topology.started, signatures.of_process):
            cached.cache_clear()
        coordination.reset()


#: Commands that change a worker or end something, as Celery's own client sends them.
CHANGES = (
    ("revoke", {"task_id": "x", "terminate": True, "signal": "KILL"}),
    ("terminate", {"task_id": "x", "signal": "KILL"}),
    ("revoke_by_stamped_headers", {"headers": {"a": ["b"]}}),
    ("time_limit", {"task_name": "good", "hard": 1e9, "soft": 1e9}),
    ("rate_limit", {"task_name": "good", "rate_limit": "1/h"}),
    ("add_consumer", {"queue": "mine"}),
    ("cancel_consumer", {"queue": "celery"}),
    ("pool_shrink", {"n": 1}),
    ("pool_grow", {"n": 9}),
    ("autoscale", {"max": 9, "min": 0}),
    ("pool_restart", {}),
    ("disable_events", {}),
    ("shutdown", {}),
    ("hello", {"from_node": "x", "revoked": {"x": 1}}),
    ("report", {}),
    ("objgraph", {}),
    ("memdump", {}),
)


@pytest.mark.services
def test_celerys_tools_ask_as_a_user_of_their_own_and_nobody_commands(world: World) -> None:
    from celery import Celery

    before = world.counted().get("control", 0)
    app = Celery(broker=world.url("monitor"), set_as_current=False)
    control = cast(Any, app).control
    for command, arguments in CHANGES:
        (answer,) = control.broadcast(command, arguments=arguments, reply=True, timeout=30, limit=1)
        ((_, said),) = answer.items()
        assert "refused" in said["error"], command
    assert world.counted()["control"] == before + len(CHANGES)
    inspect = control.inspect(timeout=30, limit=1)
    asked = {name: getattr(inspect, name)() for name in ("active", "active_queues", "clock", "conf", "ping", "registered")}
    asked |= {name: getattr(inspect, name)() for name in ("reserved", "revoked", "scheduled", "stats")}
    asked["query_task"] = inspect.query_task("x")
    assert all(answer and "error" not in str(answer)[:40] for answer in asked.values()), asked
    assert {*asked, "enable_events", "heartbeat"} == ALLOWED
    assert "a-secret" not in str(asked["conf"])
    (revoked,) = asked["revoked"].values()
    assert revoked == []
    app.close()


@pytest.mark.services
def test_celerys_own_commands_work_with_that_user_and_the_server_refuses_none(world: World) -> None:
    world.operator.execute_command("ACL", "LOG", "RESET")
    done = world.celery("monitor", "inspect", "--timeout=30", "ping")
    assert (done.returncode, "pong" in done.stdout) == (0, True), done
    done = world.celery("monitor", "list", "bindings")
    assert (done.returncode, "celery" in done.stdout) == (0, True), done
    done = world.celery("monitor", "control", "--timeout=30", "shutdown")
    assert "refused" in done.stdout + done.stderr, done
    assert world.operator.execute_command("ACL", "LOG") == []


@pytest.mark.services
@pytest.mark.parametrize("role", ["reader", "monitor"])
def test_who_only_reads_changes_nothing_in_the_broker(world: World, role: str) -> None:
    world.operator.lpush("default", "waits")
    world.operator.hset("unacked", "tag", "taken")
    connection = cast(Any, Redis).from_url(world.url(role))
    assert connection.llen("default") == 1
    assert connection.hget("unacked", "tag") == b"taken"
    for command in (
        "LPUSH default x",
        "RPOP default",
        "BRPOP default 1",
        "DEL default",
        "EXPIRE default 1",
        "SET coordination:x 1",
        "HDEL unacked tag",
        "SADD _kombu.binding.default x",
        "SREM _kombu.binding.default x",
        "PUBLISH celery-task-meta-x done",
        "FLUSHDB",
        "CONFIG GET *",
        "SHUTDOWN",
        "SCRIPT KILL",
        "RENAME default mine",
        "COPY default mine.reply.celery.pidbox",
        "EVAL return(redis.call('DEL','default')) 0",
    ):
        with pytest.raises(ResponseError, match=r"(?i)permission|NOPERM"):
            connection.execute_command(*command.split())
    # KEDA asks for a list's length with a script that names it.
    if role == "reader":
        assert connection.eval("return redis.call('llen', KEYS[1])", 1, "default") == 1
        with pytest.raises(ResponseError):
            connection.publish("/0.celery.pidbox", "x")
    world.operator.delete("default", "unacked")


def test_what_has_the_name_of_a_secret_is_hidden_however_deep() -> None:
    found = without_secrets(
        {"a": [{"password": "p"}], "broker_transport_options": {"sentinel_kwargs": {"password": "p"}}, "n": 1}
    )
    assert found == {
        "a": [{"password": "********"}],
        "broker_transport_options": {"sentinel_kwargs": {"password": "********"}},
        "n": 1,
    }


FLOWER = PROJECT / ".venv-flower/bin/celery"


@pytest.mark.services
@pytest.mark.further
@pytest.mark.skipif(not FLOWER.exists(), reason="flower is not installed (make .venv-flower/.installed)")
def test_flower_shows_workers_queues_and_tasks_with_that_user_and_commands_nobody(world: World) -> None:
    world.operator.execute_command("ACL", "LOG", "RESET")
    port, log = free_port(), world.log.parent / "flower.log"
    options = ["flower", "--address=127.0.0.1", f"--port={port}", "--inspect-timeout=3000"]
    env = {"PATH": os.environ["PATH"], "HOME": str(log.parent), "FLOWER_UNAUTHENTICATED_API": "true"}

    def asked(path: str, **body: str) -> tuple[int, str]:
        data = urllib.parse.urlencode(body).encode() if body else None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", data=data, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    with log.open("w") as output:
        command = [str(FLOWER), f"--broker={world.url('monitor')}", *options]
        flower = subprocess.Popen(command, env=env, cwd=log.parent, stdout=output, stderr=output)
    try:
        until(lambda: asked("healthcheck")[0] == 200, f"flower answers: {log}", 90)
        # It waits for as long as that for each of its questions, and is asked again.
        until(lambda: "celery@" in asked("api/workers?refresh=1")[1], f"it knows the worker: {log}", 180)
        (name,) = json.loads(asked("api/workers")[1])
        # The worker sends events from now on.
        world.put(world.send(word="seen by flower"))
        until(lambda: "seen by flower" in asked("api/tasks")[1], f"it has heard of the task: {log}", 90)
        world.operator.lpush("default", "waits")
        status, said = asked("api/queues/length")
        assert status == 200 and '"messages"' in said, said
        status, said = asked(f"api/worker/shutdown/{name}", asked="1")
        until(lambda: world.counted().get("control", 0) > 0, "the command was refused")
        status, said = asked(f"api/worker/pool/grow/{name}", n="1")
        assert status == 403 and "refused" in said, said
        assert world.operator.execute_command("ACL", "LOG") == []
    finally:
        world.operator.delete("default")
        flower.kill()
        flower.wait(30)
