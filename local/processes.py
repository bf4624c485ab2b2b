"""Which processes a topology is on this machine, and the files that they read: pure functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from local import binaries, own_superset
from local.state import PROJECT, REDIS_OPERATOR_PASSWORD, StateFolder
from runtime.start import start_script
from topology import commands, drivers, valkey_conf
from topology import redis_acl as acl
from topology.model import RedisInstance, RedisRole, Topology
from topology.own_module import OwnModule
from topology.plan import uri_variable
from topology.postgres_settings import arguments, server_settings
from topology.problems import MendableError
from topology.valkey_conf import ServerPaths

#: In the environment of every process that `make up` starts, so that one that lost its supervisor can be found.
MARK = "SUPERSET_ASYNC_STATE_FOLDER"
SAMPLE_DATABASE = "examples"
SAMPLE_ROLE = "examples"


class UriError(MendableError):
    """Declared databases whose URI is not in the environment, is said twice, or has no driver here; names each."""


@dataclass(frozen=True)
class Process:
    """One supervised process. `stop_wait_seconds` is how long it may take to end by itself after `stop_signal`."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_signal: str
    stop_wait_seconds: int
    #: Whether its stdout is the audit trail (`runtime.environment.audit_trail`), and not a part of its log.
    audited: bool = False

    def __post_init__(self) -> None:
        if any("\n" in part for part in (*self.command, *self.environment.values())):
            raise ValueError(f"process {self.name}: a command or environment value has a line break")


def processes(
    topology: Topology, folder: StateFolder, secrets: Mapping[str, str], module: OwnModule | None = None
) -> tuple[Process, ...]:
    """Every process of `topology`, data stores first: the order in which they start, and stop in reverse."""
    mark = {MARK: str(folder.root)}
    stores = [
        Process(
            name=instance.name,
            command=_redis_command(folder, instance),
            environment=mark,
            stop_signal="TERM",
            stop_wait_seconds=60,
        )
        for instance in topology.redis
    ]
    postgres = Process(
        name="postgres",
        command=(*binaries.postgres_prefix(), *_postgres_command(topology, folder)),
        environment=mark,
        # A fast shutdown: open transactions are rolled back, nothing committed is lost.
        stop_signal="INT",
        stop_wait_seconds=60,
    )
    superset = [
        Process(
            name="web",
            command=_in_superset_environment(commands.web(topology)),
            environment=superset_environment(topology, folder, secrets, "web", module),
            stop_signal="TERM",
            stop_wait_seconds=35,
            audited=True,
        )
    ]
    superset += [
        Process(
            name=f"worker-{pool.name}",
            command=_in_superset_environment(commands.worker(pool)),
            environment=superset_environment(topology, folder, secrets, "worker", module),
            stop_signal="TERM",
            stop_wait_seconds=pool.grace_period_seconds,
            audited=True,
        )
        for pool in topology.pools
    ]
    superset.append(
        Process(
            name="exporter",
            command=_in_superset_environment(commands.exporter()),
            environment=superset_environment(topology, folder, secrets, "exporter"),
            stop_signal="TERM",
            stop_wait_seconds=10,
        )
    )
    superset.append(
        Process(
            name="beat",
            command=_in_superset_environment(commands.beat(str(folder.root / "beat-schedule"))),
            environment=superset_environment(topology, folder, secrets, "beat", module),
            stop_signal="TERM",
            stop_wait_seconds=30,
        )
    )
    return (*stores, postgres, *superset)


def superset_environment(
    topology: Topology, folder: StateFolder, secrets: Mapping[str, str], role: str, module: OwnModule | None = None
) -> dict[str, str]:
    """The environment of a Superset process; the administrator's password only where it is set, in `init`; nothing of the team's
    own Superset in the exporter, which runs none.
    """
    names = secret_names(topology, role)
    uris = database_uris(topology, secrets) if role == "init" else {}
    return {
        MARK: str(folder.root),
        "HOME": str(folder.home),
        "SUPERSET_HOME": str(folder.home),
        "PATH": f"{binaries.superset_python().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
        commands.TOPOLOGY_ENV: str(folder.topology),
        commands.ROLE_ENV: role,
        "SUPERSET_CONFIG_PATH": str(PROJECT / "runtime/start/superset_config.py"),
        **{name: secrets[name] for name in sorted(names)},
        **(bucket_credentials(os.environ) if topology.caching.bucket else {}),
        **uris,
        **({} if role == "exporter" else own_superset.environment(topology, folder, module, role, os.environ)),
    }


def secret_names(topology: Topology, role: str) -> set[str]:
    """The environment variables with the secrets of a process of `role`."""
    if role == "exporter":
        return {topology.redis_users()["reader"].password_env}
    return {
        "SUPERSET_SECRET_KEY",
        "ASYNC_QUERIES_JWT_SECRET",
        topology.postgres.password_env,
        *(user.password_env for user in topology.process_redis_users().values()),
        *topology.message_key_envs().values(),
        *({"ADMIN_PASSWORD"} if role == "init" else set[str]()),
    }


def bucket_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """What boto3 goes by, of this environment: processes get their own HOME, and so no ~/.aws."""
    return {name: value for name, value in environment.items() if name.startswith("AWS_")}


def database_uris(topology: Topology, secrets: Mapping[str, str]) -> dict[str, str]:
    """URI of each declared database that has a secret one: the sample's own, others from this environment.

    Raises UriError with every mistake.
    """
    uris: dict[str, str] = {}
    problems: list[str] = []
    for database in topology.databases:
        key = f"databases.{database.name}"
        if database.uri_env is None:
            variable = uri_variable(database.name)
            if variable in os.environ:
                problems.append(f"{key}.uri and {variable} both say where it is: remove one of them")
        elif database.sample:
            server = f"{topology.postgres.host}:{topology.postgres.port}"
            password = quote(secrets["SAMPLE_PASSWORD"], safe="")
            uris[database.uri_env] = f"postgresql+psycopg2://{SAMPLE_ROLE}:{password}@{server}/{SAMPLE_DATABASE}"
        elif database.uri_env not in os.environ:
            problems.append(f"{database.uri_env} is not set: it must hold the SQLAlchemy URI of {key}")
        else:
            uri = os.environ[database.uri_env]
            uris[database.uri_env] = uri
            if found := drivers.problem(uri, topology.images.drivers):
                problems.append(f"{database.uri_env} ({key}) {found[0]}. {found[1]}")
    if problems:
        raise UriError("\n".join(["the URIs of databases cannot be used:", *(f"  - {problem}" for problem in problems)]))
    return uris


def _redis_command(folder: StateFolder, instance: RedisInstance) -> tuple[str, ...]:
    config = str(redis_config_file(folder, instance))
    return "sh", str(start_script()), str(folder.redis(instance.name)), config, str(binaries.valkey_server()), config


def redis_config_file(folder: StateFolder, instance: RedisInstance) -> Path:
    """Where a Redis instance's configuration lies."""
    return folder.redis(instance.name) / "valkey.conf"


def redis_acl_file(folder: StateFolder, instance: RedisInstance) -> Path:
    """Where a Redis instance's users lie (mode 0600: with their passwords)."""
    return folder.redis(instance.name) / "users.acl"


def redis_acl(instance: RedisInstance, secrets: Mapping[str, str]) -> str:
    """The users of a Redis instance."""
    passwords: dict[RedisRole, str] = {user.role: secrets[user.password_env] for user in instance.users}
    return acl.server_acl(instance, passwords, secrets[REDIS_OPERATOR_PASSWORD])


def redis_config(folder: StateFolder, instance: RedisInstance) -> str:
    """The configuration of a Redis instance."""
    paths = ServerPaths(str(folder.redis(instance.name)), str(redis_acl_file(folder, instance)), bind=instance.host)
    return valkey_conf.server_conf(instance, paths)


def supervisor_config(folder: StateFolder, processes: tuple[Process, ...]) -> str:
    """The supervisor's configuration: nothing starts by itself, and what dies while it should run is started again."""
    sections = [
        "[supervisord]",
        f"logfile={_escaped(str(folder.logs / 'supervisord.log'))}",
        f"pidfile={_escaped(str(folder.root / 'supervisord.pid'))}",
        f"childlogdir={_escaped(str(folder.logs))}",
        f"directory={_escaped(str(PROJECT))}",
        "loglevel=info",
        "umask=077",
        # Root by the choice of whoever ran `make up`: saying so keeps the supervisor from warning of it.
        *(["user=root"] if os.geteuid() == 0 else []),
        "",
        "[unix_http_server]",
        f"file={_escaped(str(folder.supervisor_socket))}",
        "chmod=0700",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for process in processes:
        environment = ",".join(f"{name}={_in_quotes(value)}" for name, value in process.environment.items())
        sections += [
            "",
            f"[program:{process.name}]",
            f"command={' '.join(_escaped(_quoted(part)) for part in process.command)}",
            f"environment={environment}",
            "autostart=false",
            "autorestart=true",
            # Alive for a second counts as started. What does not start is tried again, each time a second later than before,
            # for days: whoever has its port for a while, or fills the disk, leaves nothing that a person has to start.
            "startsecs=1",
            "startretries=1000",
            f"stopsignal={process.stop_signal}",
            f"stopwaitsecs={process.stop_wait_seconds}",
            "killasgroup=true",
            *_streams(folder, process),
        ]
    return "\n".join(sections) + "\n"


def _streams(folder: StateFolder, process: Process) -> list[str]:
    """Where the supervisor writes what it reads from a process: a log has an end, the audit trail only its owner deletes."""
    stream = "stderr" if process.audited else "stdout"
    log = [
        f"{stream}_logfile={_escaped(str(folder.logs / process.name))}.log",
        f"{stream}_logfile_maxbytes=20MB",
        f"{stream}_logfile_backups=2",
    ]
    if not process.audited:
        return ["redirect_stderr=true", *log]
    return [*log, f"stdout_logfile={_escaped(str(folder.audit / process.name))}.jsonl", "stdout_logfile_maxbytes=0"]


def _in_quotes(value: str) -> str:
    """A value as the supervisor reads it: in the quotes that it has none of."""
    quote = "'" if '"' in value else '"'
    return f"{quote}{_escaped(value)}{quote}"


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(part: str) -> str:
    if '"' in part:
        raise ValueError(f"a double quote cannot be passed to the supervisor: {part}")
    return f'"{part}"' if any(character in part for character in " ();'\\") else part


def _in_superset_environment(command: list[str]) -> tuple[str, ...]:
    return (str(binaries.superset_python().parent / command[0]), *command[1:])


def _postgres_command(topology: Topology, folder: StateFolder) -> tuple[str, ...]:
    postgres = topology.postgres
    settings = {
        **server_settings(postgres),
        "listen_addresses": postgres.host,
        "port": str(postgres.port),
        # No socket: its path could be too long.
        "unix_socket_directories": "",
    }
    return (str(binaries.postgres_program("postgres")), "-D", str(folder.postgres), *arguments(settings))
