"""The two sides of a comparison, each with services of its own on free ports: this project's topologies, and `stock.STOCK`."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import httpx
import psutil
import yaml
from redis import Redis
from rich.console import Console

from bench.load import stock, workloads
from bench.world import STACKS_ENV, free_ports
from client.errors import ClientError
from client.session import Session, json_object
from client.states import Backoff
from client.superset_client import SupersetClient
from local import binaries, platform
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.progress import Steps
from local.state import PROJECT, REDIS_OPERATOR_PASSWORD, STATE_ENV, StateFolder, write_private
from local.supervision import Supervisor, wait_until
from topology.model import Topology, TopologyName
from topology.presets import merge
from topology.problems import MendableError, did_you_mean

STOCK_PYTHON = PROJECT / ".venv-stock/bin/python"
#: Run in Superset's environment; the password comes on stdin, since a command line is seen by everyone.
_CREATE_ADMIN = """
import sys
from superset.cli.main import superset
person = ["--username", "admin", "--firstname", "a", "--lastname", "b", "--email", "admin@localhost"]
sys.argv = ["superset", "fab", "create-admin", *person, "--password", sys.stdin.readline().strip()]
superset()
"""
#: The longest that a web tier may take to start; ten processes on two busy cores take minutes.
START_SECONDS = 600
#: Who floods in `tenants`; the administrator is the one who is measured.
FLOODER = "flooder"
#: Of this project, on one machine: a worker of the pool's own concurrency, and a queue for each tenant.
OURS: Mapping[TopologyName, dict[str, Any]] = {
    "minimal": {},
    "enterprise": {"workers": {"min_workers": 1, "max_workers": 1}},
    "high-throughput": {"workers": {"min_workers": 1, "max_workers": 1}},
    "multi-tenant": {
        "workers": {"min_workers": 1, "max_workers": 1},
        "tenants": {"measured": {"users": ["admin"]}, "flooding": {"users": [FLOODER]}},
    },
}


class SideError(MendableError):
    """A side that is unknown, or does not start; says which, and where its log is."""


@dataclass(frozen=True)
class Server:
    """A data store as its administrator reaches it, without the delay."""

    port: int
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Account:
    """How the load logs in, and what it asks."""

    url: str
    token: str = field(repr=False)
    flood_token: str = field(repr=False)
    database_id: int
    dataset_id: int


class Side(ABC):
    """A configuration that runs: what it is called, its processes by tier, and its data stores."""

    name: str
    #: What a reader must know of it.
    source: str
    postgres: Server
    analytics: str
    account: Account
    delay_ms: float = 0.0

    @abstractmethod
    def start(self) -> None:
        """Start everything and wait until it answers; SideError or the platform's own errors."""

    @abstractmethod
    def set_delay(self, milliseconds: float) -> None:
        """Put a delay between Superset's processes and their data stores, by starting those processes anew."""

    @abstractmethod
    def restart(self, tier: str) -> None:
        """Stop the processes of a tier, and start them without waiting for them to work."""

    @abstractmethod
    def stop(self) -> None:
        """End all its processes, whatever they do."""

    @abstractmethod
    def tiers(self) -> dict[str, tuple[int, ...]]:
        """The root processes of each tier: web, worker, beat, postgres, redis, and exporter or proxy where there is one."""

    @abstractmethod
    def postgres_log(self) -> Path:
        """Where the PostgreSQL server logs."""

    @abstractmethod
    def redis(self) -> list[Any]:
        """A client of each Redis server, as its administrator."""

    def sql(self, script: str, database: str = "superset") -> str:
        """Unaligned rows of `script` by psql, as the server's administrator; SideError with psql's words."""
        command = [str(binaries.postgres_program("psql")), "--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]
        command += ["--set=ON_ERROR_STOP=1", "--host=127.0.0.1", f"--port={self.postgres.port}"]
        command += [f"--username={self.postgres.user}", f"--dbname={database}"]
        environment = os.environ | {"PGPASSWORD": self.postgres.password, "PGAPPNAME": "bench"}
        done = subprocess.run(command, input=script, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SideError(f"{self.name}: PostgreSQL refused a statement: {done.stderr.strip()}")
        return done.stdout.strip()

    def _prepare(self, url: str, username: str, password: str, database_id: int | None) -> Account:
        """Tables, dataset and users of the load; one log-in for each user."""
        token = _login(url, username, password)
        session = Session(url, None, None, token, 60)
        try:
            session.login()
            if database_id is None:
                database_id = self._register_database(session)
            body = {"database": database_id, "schema": "public", "table_name": workloads.TABLE}
            answer = session.call("POST", "/api/v1/dataset/", body=body)
            with session.shape(answer):
                dataset_id = int(json_object(answer)["id"])
            self._make_flooder(session, password)
        finally:
            session.close()
        return Account(url, token, _login(url, FLOODER, password), database_id, dataset_id)

    def _register_database(self, session: Session) -> int:
        raise NotImplementedError

    def _make_flooder(self, session: Session, password: str) -> None:
        answer = session.call("GET", "/api/v1/security/roles/", query={"page_size": 100})
        with session.shape(answer):
            admin = next(role["id"] for role in json_object(answer)["result"] if role["name"] == "Admin")
        body: dict[str, Any] = {"username": FLOODER, "first_name": "f", "last_name": "f", "email": "flooder@localhost"}
        body |= {"active": True, "roles": [admin], "password": password}
        answer = session.call("POST", "/api/v1/security/users/", body=body)
        with session.shape(answer):
            json_object(answer)


def _login(url: str, username: str, password: str) -> str:
    body = {"username": username, "password": password, "provider": "db", "refresh": False}
    answer = httpx.post(f"{url}/api/v1/security/login", json=body, timeout=60, trust_env=False)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


class Proxies:
    """The delaying proxy of a side: one process for all its data stores."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "proxy.log"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """Its process, where there is one."""
        return (self._process.pid,) if self._process else ()

    def start(self, milliseconds: float, targets: list[int]) -> dict[int, int]:
        """Start it before `targets`; the port to use for each."""
        self.stop()
        listen = free_ports(len(targets))
        routes = [f"{port}:{target}" for port, target in zip(listen, targets, strict=True)]
        command = [sys.executable, "-m", "bench.load.delay_proxy", str(milliseconds), *routes]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None  # noqa: S101 it was asked for
        if self._process.stdout.readline() != "ready\n":
            raise SideError(f"the delaying proxy did not start; see {self._log}")
        return dict(zip(targets, listen, strict=True))

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


class OurSide(Side):
    """A topology of this project as `make up` starts it, with a state folder of its own.

    `settings` are laid over the topology's own; `label` tells two of one topology apart.
    """

    def __init__(self, name: TopologyName, folder: Path, settings: Mapping[str, Any], label: str | None = None) -> None:
        self.name = label or name
        self.source = f"this project's {name}" + (f" with {json.dumps(settings)}" if settings else "")
        self.analytics = SAMPLE_DATABASE
        self._folder = folder
        self._stack = self.name
        self._topology_name = name
        self._settings = settings
        self._proxies = Proxies(folder)

    @property
    def _state(self) -> StateFolder:
        return StateFolder(self._folder / "state" / self._stack)

    def _as_operator(self) -> dict[str, str | None]:
        """Point the platform's commands to this side's folders; what the environment said before."""
        wanted = {STACKS_ENV: str(self._folder / "stacks"), STATE_ENV: str(self._folder / "state")}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        return before

    def start(self) -> None:
        """Write its stack file and take it up."""
        (self._folder / "stacks").mkdir(parents=True, exist_ok=True)
        web, postgres, exporter, redis, _ = free_ports(5)
        config = merge(
            {
                "topology": self._topology_name,
                "platform": "local",
                "databases": {SAMPLE_DATABASE: {"sample": True}},
                "local": {"web_port": web, "postgres_port": postgres, "exporter_port": exporter, "redis_port": redis},
                # Limits of one user that the load of many users, who share a name, would meet.
                "resilience": {"max_in_flight_per_user": 10_000, "max_queued": 10_000},
            },
            self._settings,
        )
        text = yaml.safe_dump({"config": {f"superset-async:{key}": value for key, value in config.items()}})
        (self._folder / "stacks" / f"Pulumi.{self._stack}.yaml").write_text(text)
        before = self._as_operator()
        try:
            running = platform.up(self._stack, Steps(Console(stderr=True, quiet=True)))
            known = platform.status(self._stack)
        finally:
            _restore(before)
        self.topology: Topology = running.topology
        self.secrets = running.secrets
        self.postgres = Server(running.topology.postgres.port, "postgres", running.secrets["POSTGRES_ADMIN_PASSWORD"])
        self.sql(workloads.PREPARE, SAMPLE_DATABASE)
        self.sql(f"ALTER TABLE {workloads.TABLE} OWNER TO {SAMPLE_ROLE}", SAMPLE_DATABASE)
        password = running.secrets["ADMIN_PASSWORD"]
        self.account = self._prepare(known["url"], known["username"], password, int(known["database_id"]))

    @property
    def supervisor(self) -> Supervisor:
        """Of its processes."""
        return Supervisor(self._state)

    def _pids(self) -> dict[str, int]:
        return {process.name: process.pid for process in self.supervisor.states() if process.pid}

    def tiers(self) -> dict[str, tuple[int, ...]]:
        """By the names of its supervised processes."""
        found: dict[str, tuple[int, ...]] = {}
        for name, pid in self._pids().items():
            tier = "worker" if name.startswith("worker-") else "redis" if name.startswith("redis") else name
            found[tier] = (*found.get(tier, ()), pid)
        return found | ({"proxy": self._proxies.pids} if self._proxies.pids else {})

    def _of_tier(self, tier: str) -> list[str]:
        return [name for name in self._pids() if name == tier or name.startswith(f"{tier}-")]

    def restart(self, tier: str) -> None:
        """Through its supervisor."""
        names = self._of_tier(tier)
        for name in names:
            self.supervisor.stop_process(name)
        if not wait_until(lambda: not set(names) & set(self._pids()), 120):
            raise SideError(f"{self.name}: {', '.join(names)} did not stop within 120 s")
        for name in names:
            self.supervisor.start_process(name)

    def set_delay(self, milliseconds: float) -> None:
        """Give Superset's processes a topology whose data stores are the proxy's ports; the servers' own stays."""
        if milliseconds == self.delay_ms:
            return
        servers = [self.topology.postgres.port, *(instance.port for instance in self.topology.redis)]
        to = self._proxies.start(milliseconds, servers) if milliseconds else {port: port for port in servers}
        moved = self.topology.model_copy(
            update={
                "postgres": self.topology.postgres.model_copy(update={"port": to[self.topology.postgres.port]}),
                "redis": tuple(it.model_copy(update={"port": to[it.port]}) for it in self.topology.redis),
            }
        )
        write_private(self._state.topology, moved.model_dump_json(indent=1))
        self.sql(f"UPDATE dbs SET sqlalchemy_uri = regexp_replace(sqlalchemy_uri, ':[0-9]+/', ':{to[self.postgres.port]}/')")
        for tier in ("web", "worker", "beat", "exporter"):
            self.restart(tier)
        self.delay_ms = milliseconds
        if not milliseconds:
            self._proxies.stop()
        _await_answers(self)

    def stop(self) -> None:
        """As its operator does, without waiting for queries."""
        before = self._as_operator()
        try:
            platform.down(self._stack, Steps(Console(stderr=True, quiet=True)), now=True)
        finally:
            _restore(before)
        self._proxies.stop()

    def postgres_log(self) -> Path:
        """The supervisor keeps it."""
        return self._state.logs / "postgres.log"

    def redis(self) -> list[Any]:
        """As `operator`."""
        password = self.secrets[REDIS_OPERATOR_PASSWORD]
        return [
            cast(Any, Redis(host=it.host, port=it.port, username="operator", password=password))
            for it in self.topology.redis
        ]


class StockSide(Side):
    """Superset without this project."""

    def __init__(self, name: str, folder: Path) -> None:
        if not STOCK_PYTHON.exists():
            raise SideError(f"{STOCK_PYTHON}: not installed; run `make bench`, which installs it")
        self.name = name
        self.analytics = "analytics"
        self._stock = stock.STOCK[name]
        self.source = self._stock.source
        self._folder = folder
        self._proxies = Proxies(folder)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._secrets = {name: secrets.token_hex(24) for name in ("key", "jwt", "postgres", "redis", "admin")}

    def start(self) -> None:
        """Data stores, migrations, web tier, worker, beat."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ports = stock.Ports(*free_ports(3))
        self.postgres = Server(self._ports.postgres, "superset", self._secrets["postgres"])
        self._start_stores()
        for database in ("superset", self.analytics):
            self.sql(f"CREATE DATABASE {database}", "postgres")
        self.sql(workloads.PREPARE, self.analytics)
        self._write(self._ports)
        programs, environment = self._superset()
        self._run_superset([str(programs / "superset"), "db", "upgrade"], environment)
        self._run_superset([str(STOCK_PYTHON), "-c", _CREATE_ADMIN], environment, self._secrets["admin"])
        self._run_superset([str(programs / "superset"), "init"], environment)
        self._start_superset()
        self.account = self._prepare(f"http://127.0.0.1:{self._ports.web}", "admin", self._secrets["admin"], None)

    def _run_superset(self, command: list[str], environment: Mapping[str, str], given: str = "") -> None:
        log = self._folder / "init.log"
        with log.open("ab") as file:
            done = subprocess.run(
                command,
                env=environment,
                cwd=self._folder,
                check=False,
                input=given.encode(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            raise SideError(f"{self.name}: {' '.join(command[1:])[:80]} failed; see {log}")

    def _start_stores(self) -> None:
        data = self._folder / "postgres"
        password_file = self._folder / "password"
        write_private(password_file, self._secrets["postgres"])
        prefix = binaries.postgres_prefix()
        command = [*prefix, str(binaries.postgres_program("initdb")), "-D", str(data), "--username=superset"]
        command += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SideError(f"{self.name}: initdb failed: {done.stderr.strip()}")
        server = [*prefix, str(binaries.postgres_program("postgres")), "-D", str(data), "-p", str(self._ports.postgres)]
        server += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        self._spawn("postgres", server, {})
        # The password is in a file: a command line is seen by everyone.
        config = self._folder / "valkey.conf"
        lines = ["bind 127.0.0.1", f"port {self._ports.redis}", 'save ""', "appendonly yes", f"dir {self._folder}"]
        write_private(config, "\n".join([*lines, f"requirepass {self._secrets['redis']}"]) + "\n")
        self._spawn("redis", [str(binaries.valkey_server()), str(config)], {})
        ready = [str(binaries.postgres_program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self._ports.postgres)]
        if not wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, 60):
            raise SideError(f"{self.name}: PostgreSQL did not start; see {self._folder / 'postgres.log'}")

    def _write(self, ports: stock.Ports) -> None:
        write_private(self._folder / "superset_config.py", stock.configuration(self._stock, ports, self._secrets))

    def _superset(self) -> tuple[Path, Mapping[str, str]]:
        programs = STOCK_PYTHON.parent
        return programs, {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self._folder),
            "SUPERSET_HOME": str(self._folder),
            "SUPERSET_CONFIG_PATH": str(self._folder / "superset_config.py"),
            "FLASK_APP": "superset.app:create_app()",
            "LANG": "C.UTF-8",
        }

    def _spawn(self, tier: str, command: list[str], environment: Mapping[str, str]) -> None:
        with (self._folder / f"{tier}.log").open("ab") as log:
            self._running[tier] = subprocess.Popen(
                command,
                env=dict(environment) or None,
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _start_superset(self, tiers: tuple[str, ...] = ("web", "worker", "beat")) -> None:
        programs, environment = self._superset()
        for tier, command in stock.commands(self._stock, self._ports, str(self._folder)).items():
            if tier in tiers:
                named = {**environment, "PGAPPNAME": f"superset-{tier}"}
                self._spawn(tier, [str(programs / command[0]), *command[1:]], named)
        if "web" in tiers and not wait_until(lambda: _healthy(f"http://127.0.0.1:{self._ports.web}"), START_SECONDS, 0.5):
            raise SideError(f"{self.name}: the web tier did not start; see {self._folder / 'web.log'}")

    def _register_database(self, session: Session) -> int:
        uri = f"postgresql+psycopg2://superset:{self._secrets['postgres']}@127.0.0.1:{self._ports.postgres}/{self.analytics}"
        body = {"database_name": self.analytics, "sqlalchemy_uri": uri, "expose_in_sqllab": True, "allow_run_async": True}
        answer = session.call("POST", "/api/v1/database/", body=body)
        with session.shape(answer):
            return int(json_object(answer)["id"])

    def tiers(self) -> dict[str, tuple[int, ...]]:
        """As they were started."""
        found = {tier: (process.pid,) for tier, process in self._running.items()}
        return found | ({"proxy": self._proxies.pids} if self._proxies.pids else {})

    def restart(self, tier: str) -> None:
        """End the process by a signal, and start another."""
        self._end(tier)
        self._start_superset((tier,))

    def set_delay(self, milliseconds: float) -> None:
        """Write the proxy's ports into the configuration."""
        if milliseconds == self.delay_ms:
            return
        targets = [self._ports.postgres, self._ports.redis]
        to = self._proxies.start(milliseconds, targets) if milliseconds else {port: port for port in targets}
        moved = stock.Ports(self._ports.web, to[self._ports.postgres], to[self._ports.redis])
        for tier in ("web", "worker", "beat"):
            self._end(tier)
        self._write(moved)
        self.sql(f"UPDATE dbs SET sqlalchemy_uri = regexp_replace(sqlalchemy_uri, ':[0-9]+/', ':{moved.postgres}/')")
        self._start_superset()
        self.delay_ms = milliseconds
        if not milliseconds:
            self._proxies.stop()
        _await_answers(self)

    def _end(self, tier: str) -> None:
        process = self._running.pop(tier, None)
        if process is None:
            return
        root = psutil.Process(process.pid)
        family = [*root.children(recursive=True), root]
        # PostgreSQL: a fast shutdown; the others end after what they do.
        (process.send_signal(signal.SIGINT) if tier == "postgres" else process.terminate())
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            for member in family:
                if member.is_running():
                    member.kill()
            process.wait()

    def stop(self) -> None:
        """Superset's processes, then the data stores."""
        for tier in ("beat", "worker", "web", "redis", "postgres"):
            self._end(tier)
        self._proxies.stop()

    def postgres_log(self) -> Path:
        """What the server writes to stderr."""
        return self._folder / "postgres.log"

    def redis(self) -> list[Any]:
        """With the server's one password."""
        return [cast(Any, Redis(host="127.0.0.1", port=self._ports.redis, password=self._secrets["redis"]))]


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def first_answer(side: Side, patience: float = 180.0) -> float:
    """Seconds until a query's rows are there, asking anew for as long as the side does not answer; SideError after `patience`."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        backoff = Backoff(first=0.05, factor=1.1, cap=0.2)
        with SupersetClient(side.account.url, token=side.account.token, backoff=backoff, retry_seconds=5) as client:
            try:
                client.run("SELECT 1", side.account.database_id, timeout=patience)
            except ClientError:
                time.sleep(0.1)
                continue
            return time.monotonic() - began
    raise SideError(f"{side.name}: no answer within {patience:g} s")


def _await_answers(side: Side) -> None:
    first_answer(side)


def names() -> tuple[str, ...]:
    """Every side that can be named."""
    return (*get_args(TopologyName), *stock.STOCK)


def side(name: str, folder: Path) -> Side:
    """The side called `name`, with its files below `folder`; SideError for an unknown one."""
    if name in stock.STOCK:
        return StockSide(name, folder / name)
    for topology in get_args(TopologyName):
        if name == topology:
            return OurSide(topology, folder / name, OURS[topology])
    raise SideError(f"{name}: no such side. {did_you_mean(name, names())}")
