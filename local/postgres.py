"""The local PostgreSQL: its data directory, and the roles and databases in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

from local import binaries
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from local.state import StateFolder
from topology.model import Topology
from topology.problems import MendableError

_ADMIN = "postgres"


class PostgresError(MendableError):
    """What initdb or psql refused, in its own words."""


def ensure_data_directory(folder: StateFolder, secrets: Mapping[str, str]) -> None:
    """Create the data directory unless it is there; passwords (SCRAM) for every connection, none trusted.

    One that an interrupted run left unfinished is made anew: it never held data.
    """
    if (folder.postgres / "PG_VERSION").exists():
        return
    draft = folder.root / "postgres.new"
    shutil.rmtree(draft, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=folder.root, prefix="initdb-") as password_file:
        password_file.write(secrets["POSTGRES_ADMIN_PASSWORD"])
        password_file.flush()
        command = [
            *binaries.postgres_prefix(),
            str(binaries.postgres_program("initdb")),
            "-D",
            str(draft),
            f"--username={_ADMIN}",
            "--auth=scram-sha-256",
            f"--pwfile={password_file.name}",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise PostgresError(f"initdb failed: {done.stderr.strip()}")
    draft.rename(folder.postgres)


def ready(topology: Topology) -> bool:
    """Whether the server accepts connections."""
    server = topology.postgres
    command = [str(binaries.postgres_program("pg_isready")), "-q", "-h", server.host, "-p", str(server.port)]
    return subprocess.run(command, check=False).returncode == 0


def ensure_databases(topology: Topology, secrets: Mapping[str, str]) -> None:
    """Create the roles and databases that the topology needs, unless they are there; PostgresError with psql's words."""
    server = topology.postgres
    wanted = [(server.user, secrets[server.password_env], server.database)]
    if any(database.sample for database in topology.databases):
        wanted.append((SAMPLE_ROLE, secrets["SAMPLE_PASSWORD"], SAMPLE_DATABASE))
    script = "".join(
        f"SELECT 'CREATE ROLE {role} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec\n"
        f"ALTER ROLE {role} PASSWORD '{password}';\n"
        f"SELECT 'CREATE DATABASE {database} OWNER {role}'"
        f" WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec\n"
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;\n"
        for role, password, database in wanted
    )
    run_sql(topology, _ADMIN, secrets["POSTGRES_ADMIN_PASSWORD"], "postgres", script)


def run_sql(topology: Topology, user: str, password: str, database: str, script: str) -> str:
    """Run `script` with psql and return its unaligned rows; PostgresError with psql's words, without the script."""
    server = topology.postgres
    command = [
        str(binaries.postgres_program("psql")),
        "--no-psqlrc",
        "--quiet",
        "--no-align",
        "--tuples-only",
        "--set=ON_ERROR_STOP=1",
        f"--host={server.host}",
        f"--port={server.port}",
        f"--username={user}",
        f"--dbname={database}",
    ]
    environment = os.environ | {"PGPASSWORD": password}
    done = subprocess.run(command, input=script, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise PostgresError(f"PostgreSQL refused a statement: {done.stderr.strip()}")
    return done.stdout.strip()
