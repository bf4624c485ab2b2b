"""What the init job asks of a Redis server that exists, on real servers that are right, and wrong in each way."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from local import binaries
from runtime.broker import server_check
from runtime.environment import secrets
from runtime.start.init import InitError, look_at_existing
from tests.runtime.conftest import free_ports, until
from tests.runtime.stacks import environment, topology
from topology import redis_acl
from topology.model import Topology

PASSWORD = "given p@ss/word"
#: What lets a user do its work and administer nothing, as topology.redis_acl grants it; and without asking for CONFIG or INFO.
ALLOWED = f"~* &* +@all {redis_acl.FORBIDDEN}"


def existing(port: int, stack: str = "minimal", username: str = "default") -> Topology:
    """A stack whose broker is a server on `port`; its caches share it (minimal) or are elsewhere (high-throughput)."""
    server = {"host": "127.0.0.1", "port": port, "username": username}
    broker = {"existing": server, "replicas": 0, "sentinel": False}
    return topology(stack, redis={"broker": broker})


Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Start:
    """Starts a server with these directives and ACL rules of a user `app`; its port."""

    def started(*directives: str, app: str | None = None) -> int:
        port = free_ports(2)
        users = [f"user app on >{PASSWORD.replace(' ', '_')} {app}"] if app else []
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {tmp_path}", *directives]
        if "cluster-enabled yes" in directives:
            # Which otherwise is 10000 above the other, where there may be none.
            lines.append(f"cluster-port {port + 1}")
        if app:
            (tmp_path / "users.acl").write_text("\n".join(["user default on nopass ~* &* +@all", *users]) + "\n")
            lines.append(f"aclfile {tmp_path}/users.acl")
        else:
            lines.append(f'requirepass "{PASSWORD}"')
        (tmp_path / "server.conf").write_text("\n".join(lines))
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [str(binaries.valkey_server()), str(tmp_path / "server.conf")], stdout=log, stderr=log
            )

        def stop() -> None:
            process.terminate()
            process.wait(20)

        request.addfinalizer(stop)
        until(lambda: answers(port), 20, "the server answers")
        return port

    return started


def answers(port: int) -> bool:
    try:
        with closing(redis_client.Redis(port=port)) as connection:
            return bool(connection.ping())
    except redis_client.AuthenticationError:
        return True
    except redis_client.RedisError:
        return False


def given(plan: Topology, password: str = PASSWORD) -> dict[str, str]:
    return environment(plan, "init") | {user.password_env: password for user in plan.redis_users().values()}


def check(plan: Topology, password: str = PASSWORD) -> list[server_check.Finding]:
    return server_check.check(plan, secrets.read(plan, given(plan, password)))


RIGHT = ("maxmemory 64mb", "maxmemory-policy volatile-lru", "appendonly yes")


def test_a_server_that_is_right_is_used_and_nothing_stays_behind(start: Start) -> None:
    plan = existing(start(*RIGHT))
    assert check(plan) == []
    look_at_existing(plan, given(plan))
    with closing(redis_client.Redis(port=plan.redis[0].port, password=PASSWORD)) as connection:
        assert connection.info("keyspace") == {}


def test_the_stacks_own_servers_are_not_asked() -> None:
    """Nothing listens there."""
    assert check(topology("enterprise")) == []


@pytest.mark.parametrize(
    ("stack", "directives", "what", "value", "fix"),
    [
        ("minimal", ("maxmemory-policy allkeys-lru", *RIGHT[2:]), "maxmemory-policy", "allkeys-lru", "Set noeviction"),
        ("minimal", ("maxmemory-policy noeviction", *RIGHT[2:]), "maxmemory-policy", "noeviction", "redis.cache"),
        ("minimal", (*RIGHT[:2], "appendonly no", 'save ""'), "persistence", "none", "appendonly yes"),
        ("minimal", (*RIGHT, "databases 4"), "database 4", "missing", "16 databases"),
        ("minimal", (*RIGHT, "cluster-enabled yes"), "database 1", "missing", "Cluster has only database 0"),
        # Valkey 9 gives a cluster several databases; kombu is no cluster's client for it.
        (
            "minimal",
            (*RIGHT, "cluster-enabled yes", "cluster-databases 16"),
            "cluster mode",
            "on",
            "cluster mode is disabled",
        ),
    ],
)
def test_what_would_lose_tasks_is_refused_with_the_way_out(
    stack: str, directives: tuple[str, ...], what: str, value: str, fix: str, start: Start
) -> None:
    plan = existing(start(*directives), stack)
    found = next(each for each in check(plan) if each.what.startswith(f"{what} of redis at 127.0.0.1"))
    assert (found.value, found.warning) == (value, False)
    assert fix in found.fix
    with pytest.raises(InitError) as error:
        look_at_existing(plan, given(plan))
    assert str(found) in str(error.value)
    assert PASSWORD not in str(error.value)


def test_every_problem_is_told_at_once_and_databases_one_by_one(start: Start) -> None:
    plan = existing(start("maxmemory-policy allkeys-lru", "appendonly no", 'save ""', "databases 8"))
    with pytest.raises(InitError, match="4 problems") as error:
        look_at_existing(plan, given(plan))
    for words in ("1. maxmemory-policy", "2. persistence", "3. database 8", "4. database 9"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        (ALLOWED, {}),
        (f"{ALLOWED} +info +config|get", {}),
        (f"{ALLOWED} +info -eval", {3: "EVAL metadata_cache:", 8: "EVAL rate_limits:"}),
        (f"{ALLOWED} +info resetkeys ~default* ~_kombu* ~unacked*", {1: "SETEX celery-task-meta-", 4: "SET data_cache:"}),
        (f"{ALLOWED} +info resetchannels &celery-task-meta-*", {0: "PSUBSCRIBE /0.celery.pidbox"}),
        ("~* &* +@read +ping +select +info +psubscribe", {0: "LREM default", 2: "XADD async-events-"}),
    ],
)
def test_what_the_user_may_not_do_is_named_by_database(rules: str, refused: dict[int, str], start: Start) -> None:
    """As far as the caches' and Celery's own commands go; a user without CONFIG and INFO is asked for one of them."""
    plan = existing(start(*RIGHT, app=rules), username="app")
    found = check(plan, PASSWORD.replace(" ", "_"))
    users = {each.what: each for each in found if each.what.startswith("user 'app'")}
    for number, command in refused.items():
        assert command in users[f"user 'app' in database {number} of redis at 127.0.0.1:{plan.redis[0].port}"].value
    if not refused:
        assert users == {}
    if "info" not in rules:
        assert [(each.what.split()[0], each.warning) for each in found] == [
            ("maxmemory-policy", False),
            ("persistence", True),
        ]


def test_where_config_is_forbidden_info_says_it(start: Start) -> None:
    """As on managed services: the policy and the append-only file are seen; snapshots only once there was one."""
    managed = f"{ALLOWED} +info"
    assert check(existing(start(*RIGHT, app=managed), username="app"), PASSWORD.replace(" ", "_")) == []


def test_snapshots_that_nobody_can_see_are_a_warning(start: Start, capsys: Any) -> None:
    plan = existing(start(*RIGHT[:2], "appendonly no", app=f"{ALLOWED} +info"), username="app")
    look_at_existing(plan, given(plan, PASSWORD.replace(" ", "_")))
    assert "warning: persistence of redis at 127.0.0.1" in capsys.readouterr().out
    with closing(redis_client.Redis(port=plan.redis[0].port)) as connection:
        connection.save()
    assert check(plan, PASSWORD.replace(" ", "_")) == []
