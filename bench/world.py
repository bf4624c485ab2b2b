"""A platform of a scenario's own: real services on free ports in a temporary folder, which it may break and look into.

with World({"topology": "minimal", ...}, say=print) as world:
    world.sql("CREATE TABLE runs (n int)", "examples")
    with Load(world, clients=50, sql=lambda n: f"SELECT pg_temp_sleep(1), {n}") as load:
        world.kill("worker-default")
    print(load.outcomes)
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import psutil
import yaml
from redis import Redis
from rich.console import Console

from client.errors import ClientError, QueryFailedError, SubmissionRefusedError
from client.session import Session
from client.states import Backoff
from client.superset_client import SupersetClient
from local import platform, postgres
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.progress import Steps
from local.state import REDIS_OPERATOR_PASSWORD, STATE_ENV, StateFolder
from local.supervision import Supervisor, wait_until
from topology.model import Topology

STACK = "scenario"
STACKS_ENV = "SUPERSET_ASYNC_STACKS"
#: Superset disallows pg_sleep itself; this function sleeps and costs no processor time.
SLEEP = """
CREATE OR REPLACE FUNCTION wait_seconds(seconds float8, what bigint DEFAULT 0) RETURNS bigint LANGUAGE plpgsql VOLATILE AS
$$ BEGIN PERFORM pg_sleep(seconds); RETURN what; END $$;
"""


def free_ports(count: int) -> list[int]:
    """`count` ports in a row that nobody listens on now (Redis servers need consecutive ones)."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        if first + count < 65536 and all(_free(port) for port in range(first, first + count)):
            return list(range(first, first + count))
    raise RuntimeError(f"no {count} free ports in a row")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@dataclass
class World:
    """One running platform. `settings` are keys of a stack file; ports and the sample database are added.

    `observe`: with Prometheus and Alertmanager beside it. `sample` False leaves the 1.2 million sample rows out (the database is
    there, empty, with `wait_seconds`).
    """

    settings: Mapping[str, Any]
    say: Callable[[str], None] = print
    observe: bool = False
    folder: Path = field(init=False)
    topology: Topology = field(init=False)
    secrets: Mapping[str, str] = field(init=False)
    known: dict[str, Any] = field(init=False)
    _ports: dict[str, int] = field(default_factory=dict[str, int], init=False)
    _token: str | None = field(default=None, init=False)
    _before: dict[str, str | None] = field(default_factory=dict[str, str | None], init=False)

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="superset-async-scenario-"))
        ports = free_ports(7)
        names = ("web_port", "postgres_port", "exporter_port", "prometheus_port", "alertmanager_port", "redis_port")
        self._ports = dict(zip(names, ports, strict=False))
        stacks = self.folder / "stacks"
        stacks.mkdir()
        for name, value in {STACKS_ENV: str(stacks), STATE_ENV: str(self.folder / "state")}.items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value
        try:
            self._up()
        except BaseException:
            self._end()
            raise
        self.sql(SLEEP, SAMPLE_DATABASE, user=SAMPLE_ROLE)
        return self

    def change(self, settings: Mapping[str, Any]) -> None:
        """Give the stack file other settings and take it up, as its operator does."""
        self.settings = settings
        self._up()

    def _up(self) -> None:
        config = {
            "topology": "minimal",
            "platform": "local",
            "databases": {SAMPLE_DATABASE: {"sample": True}},
            "local": self._ports,
        } | dict(self.settings)
        text = yaml.safe_dump({"config": {f"superset-async:{key}": value for key, value in config.items()}})
        (self.folder / "stacks" / f"Pulumi.{STACK}.yaml").write_text(text)
        began = time.monotonic()
        running = platform.up(STACK, Steps(Console(stderr=True, quiet=True)), observe=self.observe)
        self.topology, self.secrets = running.topology, running.secrets
        self.known = platform.status(STACK)
        self.say(f"platform up in {time.monotonic() - began:.0f} s ({', '.join(sorted(self.known['processes']))})")

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        platform.down(STACK, Steps(Console(stderr=True, quiet=True)), now=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def state(self) -> StateFolder:
        """The folder of its state."""
        return StateFolder(self.folder / "state" / STACK)

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of its processes."""
        return Supervisor(self.state)

    @property
    def database_id(self) -> int:
        """Superset's id of the sample database."""
        return int(self.known["database_id"])

    @property
    def dataset_id(self) -> int:
        """Superset's id of the dataset `orders`."""
        return int(self.known["dataset_id"])

    def pid(self, name: str) -> int:
        """The process id of a supervised process (`web`, `worker-default`, `redis`, `postgres`, `beat` …); 0: not running."""
        return next(process.pid for process in self.supervisor.states() if process.name == name)

    def children(self, name: str) -> list[psutil.Process]:
        """The child processes of one: gunicorn's workers, or Celery's pool."""
        return psutil.Process(self.pid(name)).children(recursive=True)

    def kill(self, name: str) -> None:
        """SIGKILL a process with its children, as a node's end does; the supervisor starts it again at once."""
        parent = psutil.Process(self.pid(name))
        for process in (*parent.children(recursive=True), parent):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_for(self, name: str, seconds: float) -> None:
        """SIGKILL a process and start it again after `seconds`."""
        self.kill(name)
        self.stop(name)
        time.sleep(seconds)
        self.supervisor.start_process(name)

    def stop(self, name: str) -> None:
        """Stop a process, as a scale-in does, and wait for its end."""
        if not wait_until(lambda: self._stopped(name), 60, pause=0.02):
            state = next(process.state for process in self.supervisor.states() if process.name == name)
            raise RuntimeError(f"{name} does not stop within 60 s ({state}): {self.log(name)[-500:]}")

    def _stopped(self, name: str) -> bool:
        self.supervisor.stop_process(name)
        return next(process.state for process in self.supervisor.states() if process.name == name) in ("STOPPED", "EXITED")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process (not to its children)."""
        os.kill(self.pid(name), number)

    def sql(self, script: str, database: str = "superset", user: str = "postgres") -> str:
        """Unaligned rows of `script`, by psql, as the server's administrator unless `user` is the sample's role."""
        password = self.secrets["SAMPLE_PASSWORD" if user == SAMPLE_ROLE else "POSTGRES_ADMIN_PASSWORD"]
        return postgres.run_sql(self.topology, user, password, database, script)

    def redis(self, role: str = "broker", number: int | None = None) -> Any:
        """A client of the server of `role` as its operator, on the broker's database unless `number` says another."""
        instance = next(it for it in self.topology.redis if any(user.role == role for user in it.users))
        number = self.topology.database("broker").number if number is None else number
        password = self.secrets[REDIS_OPERATOR_PASSWORD]
        return cast(Any, Redis(host=instance.host, port=instance.port, db=number, username="operator", password=password))

    def client(self, poll_seconds: float = 0.2) -> SupersetClient:
        """A new session as the administrator; all share one log-in, since log-ins are limited in number."""
        if self._token is None:
            self._token = self._login()
        return SupersetClient(
            self.known["url"], token=self._token, backoff=Backoff(first=poll_seconds, factor=1.2, cap=1.0), retry_seconds=60
        )

    def log_in_again(self) -> None:
        """Have the next session log in: a log-in is good for a quarter of an hour."""
        self._token = None

    def session(self) -> Session:
        """A new session as the administrator, for requests that the client has no method for."""
        self.client().close()
        return Session(self.known["url"], None, None, self._token, 60)

    def _login(self) -> str:
        import httpx

        password = Path(self.known["password_file"]).read_text().strip()
        body = {"username": self.known["username"], "password": password, "provider": "db", "refresh": False}
        answer = httpx.post(f"{self.known['url']}/api/v1/security/login", json=body, timeout=60, trust_env=False)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def log(self, name: str) -> str:
        """The log of a process so far."""
        return (self.folder / "state" / STACK / "logs" / f"{name}.log").read_text(errors="replace")


@dataclass(frozen=True)
class Outcome:
    """How one submission ended, seen by its client: `kind` is success, failed, refused, error or unanswered."""

    number: int
    kind: str
    message: str
    seconds: float
    query_id: int | None


@dataclass
class Load:
    """`clients` closed-loop users, each with a session of its own, who submit `sql(n)` until the block ends, and then wait for
    what they have submitted. `think`: seconds between a user's queries. `most`: queries of all users together."""

    world: World
    clients: int
    sql: Callable[[int], str]
    think: float = 1.0
    most: int | None = None
    patience: float = 180.0
    outcomes: list[Outcome] = field(default_factory=list[Outcome], init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _submitted: int = field(default=0, init=False)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread], init=False)

    def __enter__(self) -> Self:
        self.world.client().close()
        self._threads = [threading.Thread(target=self._user, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
            time.sleep(0.02)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self.wait()

    def wait(self) -> None:
        """Wait until every user is done: with `most`, until so many queries have ended."""
        for thread in self._threads:
            thread.join(self.patience + 60)

    def counts(self) -> Counter[str]:
        """How many submissions ended how."""
        return Counter(outcome.kind for outcome in self.outcomes)

    def _next(self) -> int | None:
        with self._lock:
            if self._stop.is_set() or (self.most is not None and self._submitted >= self.most):
                return None
            self._submitted += 1
            return self._submitted

    def _user(self) -> None:
        with self.world.client() as client:
            while (number := self._next()) is not None:
                self.outcomes.append(self._one(client, number))
                self._stop.wait(self.think)

    def _one(self, client: SupersetClient, number: int) -> Outcome:
        began = time.monotonic()
        query_id = None

        def ended(kind: str, message: str = "") -> Outcome:
            return Outcome(number, kind, message, time.monotonic() - began, query_id)

        try:
            handle = client.submit(self.sql(number), self.world.database_id)
            query_id = handle.id
            status = client.wait(handle, timeout=self.patience, pending_timeout=None)
            client.results(status)
        except QueryFailedError as error:
            return ended("failed", str(error))
        except SubmissionRefusedError as error:
            return ended("refused", str(error))
        except ClientError as error:
            return ended("unanswered" if query_id else "error", f"{type(error).__name__}: {error}")
        return ended("success")
