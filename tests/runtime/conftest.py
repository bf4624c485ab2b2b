"""Real services for the tests of Superset itself: PostgreSQL and two Valkeys on free ports, and a prepared metadata database."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from local import binaries
from tests.runtime.stacks import REDIS_PASSWORDS, environment, one_server, topology
from tests.waiting import until
from topology import redis_acl
from topology.model import Topology

PROJECT = Path(__file__).resolve().parents[2]
#: Seconds after which the database ends a statement of the database that the stack declares, and of any other.
DECLARED_LIMIT, STACK_LIMIT = 3, 7
#: The same of one tenant, whatever the database.
TENANT_LIMIT = 2
#: Of Redis's operator.
OPERATOR_PASSWORD = "operator"
#: The metadata database as the init job leaves it.
TEMPLATE = "initialized"


@dataclass(frozen=True)
class Services:
    """PostgreSQL and two consecutive Valkeys on loopback, with a folder for files."""

    folder: Path
    postgres_port: int
    redis_port: int

    def sql(self, statement: str, database: str = "superset") -> str:
        """The unaligned rows of a statement."""
        done = subprocess.run(
            self._psql(database), input=statement, env=self.libpq_environment(), check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def impersonated(self, *names: str) -> None:
        """Have users of these names be roles of PostgreSQL, too, with the analyst's password."""
        there = set(self.sql("SELECT rolname FROM pg_roles", "postgres").splitlines())
        for name in set(names) - there:
            self.sql(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'analyst'", "postgres")

    @contextmanager
    def holding(self, statement: str, database: str = "superset") -> Generator[None]:
        """A transaction that has executed a statement, and is rolled back after the block."""
        with subprocess.Popen(
            self._psql(database), env=self.libpq_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as session:
            assert session.stdin is not None and session.stdout is not None
            try:
                session.stdin.write(f"BEGIN;\n{statement};\n\\echo held\n")
                session.stdin.flush()
                assert "held" in (line.strip() for line in session.stdout), statement
                yield
            finally:
                session.communicate("ROLLBACK;\n")

    def _psql(self, database: str) -> list[str]:
        return [
            str(binaries.postgres_program("psql")),
            *("--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"),
            *("--host=127.0.0.1", f"--port={self.postgres_port}", "--username=superset", f"--dbname={database}"),
        ]

    def libpq_environment(self) -> dict[str, str]:
        """Environment with the superuser's password for libpq."""
        return os.environ | {"PGPASSWORD": (self.folder / "postgres-password").read_text()}

    def on_loopback(self, plan: Topology) -> Topology:
        """`plan` with its metadata database on this PostgreSQL, and nothing else changed."""
        here = {"host": "127.0.0.1", "port": self.postgres_port}
        return plan.model_copy(update={"postgres": plan.postgres.model_copy(update=here)})

    def process_environment(self, plan: Topology, role: str, name: str = "topology") -> dict[str, str]:
        """What a Superset process of `plan` gets, with the topology written to a file of `name`."""
        path = self.folder / f"{name}.json"
        path.write_text(plan.model_dump_json())
        return {
            "PATH": f"{binaries.superset_python().parent}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "SUPERSET_HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(PROJECT),
            "SUPERSET_CONFIG_PATH": str(PROJECT / "runtime/start/superset_config.py"),
            "SUPERSET_ASYNC_TOPOLOGY": str(path),
            **environment(plan, role),
            "POSTGRES_PASSWORD": (self.folder / "postgres-password").read_text(),
            "DATABASE_URI_ANALYTICS": self.analytics_uri,
            "DATABASE_URI_WAREHOUSE": self.analytics_uri,
            "ADMIN_PASSWORD": "first-password",
        }

    @property
    def analytics_uri(self) -> str:
        return f"postgresql://analyst:analyst@127.0.0.1:{self.postgres_port}/analytics"

    @property
    def stranger_uri(self) -> str:
        """The same database as another role, which has no part in it."""
        return self.analytics_uri.replace("analyst:analyst", "stranger:stranger")


@dataclass(frozen=True)
class Prepared:
    """The multi-tenant topology on the services, its metadata database made by `runtime.start.init`, and what that printed."""

    services: Services
    topology: Topology
    first_run: str

    def environment(self, role: str) -> dict[str, str]:
        """The environment of a process of that role."""
        return self.services.process_environment(self.topology, role, "multi-tenant-live")

    def init(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """A run of the init job, with `changes` of its environment."""
        command = [str(binaries.superset_python()), "-m", "runtime.start.init", *arguments]
        env = self.environment("init") | changes
        return subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True)


def run_script(name: str, env: Mapping[str, str], *arguments: str) -> Any:
    """What the module `tests.runtime.NAME` prints as JSON in its last line, run in Superset's environment."""
    return json.loads(printed(name, env, *arguments)[-1])


def printed(name: str, env: Mapping[str, str], *arguments: str) -> list[str]:
    """The lines that the module prints; before those of its own are the records of the audit trail."""
    command = [str(binaries.superset_python()), "-m", f"tests.runtime.{name}", *arguments]
    done = subprocess.run(command, env=dict(env), cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-8000:]
    return done.stdout.strip().splitlines()


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports that nobody listens on."""
    for _ in range(100):
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with closing(socket.socket()) as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first
    raise AssertionError("no consecutive free ports")


def _answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    found = Services(folder=folder, postgres_port=free_ports(1), redis_port=free_ports(2))
    password = folder / "postgres-password"
    password.write_text(secrets.token_urlsafe(12) + "@/:%41 é")
    data = folder / "postgres"
    prefix = binaries.postgres_prefix()
    initdb = ["initdb", "-D", str(data), "-U", "superset", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8"]
    subprocess.run(
        [*prefix, str(binaries.postgres_program(initdb[0])), *initdb[1:], "--locale=C.UTF-8", "--no-sync"],
        check=True,
        capture_output=True,
    )
    options = {
        "port": found.postgres_port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": 60,
    }
    log = (folder / "services.log").open("w")
    processes = [
        subprocess.Popen(
            [
                *prefix,
                str(binaries.postgres_program("postgres")),
                *("-D", str(data)),
                *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
            ],
            stdout=log,
            stderr=log,
        )
    ]
    # Both servers have both users, as strictly apart as where they share one.
    shared = one_server()
    for port in (found.redis_port, found.redis_port + 1):
        users = folder / f"users-{port}.acl"
        users.write_text(redis_acl.server_acl(shared, REDIS_PASSWORDS, OPERATOR_PASSWORD))
        settings = [f"port {port}", "bind 127.0.0.1", f"aclfile {users}", 'save ""', f"dir {folder}"]
        file = folder / f"valkey-{port}.conf"
        file.write_text("\n".join(settings))
        processes.append(subprocess.Popen([str(binaries.valkey_server()), str(file)], stdout=log, stderr=log))
    try:
        until(lambda: _answers(found.redis_port) and _answers(found.redis_port + 1), 20, "Valkey listens")
        ready = [str(binaries.postgres_program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(found.postgres_port)]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, 20, "PostgreSQL accepts connections")
        for statement in (
            "CREATE DATABASE superset",
            "CREATE ROLE analyst LOGIN PASSWORD 'analyst'",
            "CREATE DATABASE analytics OWNER analyst",
            "CREATE ROLE stranger LOGIN PASSWORD 'stranger'",
        ):
            found.sql(statement, database="postgres")
        # Superset forbids pg_sleep itself.
        found.sql(
            "CREATE FUNCTION slow(seconds int) RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(seconds)'",
            database="analytics",
        )
        yield found
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
        log.close()


@pytest.fixture(scope="session")
def initialized(services: Services) -> Prepared:
    """The multi-tenant stack as local processes would have it; what the init job made is a template."""
    plan = topology(
        "multi-tenant",
        platform="local",
        local={"web_port": 8088, "redis_port": services.redis_port, "postgres_port": services.postgres_port},
        databases={"analytics": {"statement_timeout": DECLARED_LIMIT}, "warehouse": {}},
        tenants={
            "tenant-a": {
                "users": ["alice", "ann"],
                "roles": ["Finance"],
                "guests": [{"claim": "org", "value": "acme-*"}],
                "soft_time_limit": 50,
                "time_limit": 60,
                "statement_timeout": TENANT_LIMIT,
            },
            "tenant-b": {"users": ["bob"], "databases": ["warehouse"]},
        },
        statement_timeout=STACK_LIMIT,
    )
    found = Prepared(services=services, topology=plan, first_run="")
    done = found.init()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-8000:]
    services.sql(f"ALTER DATABASE superset RENAME TO {TEMPLATE}", database="postgres")
    return Prepared(services=services, topology=plan, first_run=done.stdout)


def renewed(initialized: Prepared) -> Prepared:
    """The same with nothing that earlier tests left in the metadata database and in Redis."""
    services = initialized.services
    for statement in ("DROP DATABASE IF EXISTS superset WITH (FORCE)", f"CREATE DATABASE superset TEMPLATE {TEMPLATE}"):
        services.sql(statement, database="postgres")
    for port in (services.redis_port, services.redis_port + 1):
        with Redis(port=port, username="operator", password=OPERATOR_PASSWORD) as server:
            server.flushall()
    return initialized


@pytest.fixture(scope="module")
def prepared(initialized: Prepared) -> Prepared:
    """A stack of the module's own on the services that all share."""
    return renewed(initialized)
