"""One rendering of a server's configuration for both platforms, as a real server takes it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import redis as redis_client

from components.redis_files import SERVER_PATHS, server_files
from local import binaries
from local.processes import redis_config
from local.state import StateFolder
from tests.plain import without_tls
from tests.waiting import free_port, until
from topology import redis_acl, stack_file, valkey_conf
from topology.model import RedisInstance, RedisRole
from topology.plan import plan
from topology.settings.redis import Persistence
from topology.valkey_conf import ServerPaths

OPERATOR = "operator-password"
PASSWORDS: dict[RedisRole, str] = {role: f"{role}-password" for role in get_args(RedisRole)}


def instances() -> list[RedisInstance]:
    """Of every stack whose servers are ours: ElastiCache writes its own files."""
    planned = [plan(name, without_tls(stack_file.read(name))) for name in stack_file.names()]
    return [instance for topology in planned if topology.platform != "aws" for instance in topology.redis]


def chosen(name: str, **changes: Any) -> RedisInstance:
    return next(each for each in instances() if each.name == name).model_copy(update=changes)


def running(conf: str, paths: ServerPaths, instance: RedisInstance) -> dict[str, str]:
    """What a real server that started with `conf` says of its settings."""
    Path(paths.acl_file).write_text(redis_acl.server_acl(instance, PASSWORDS, OPERATOR))
    folder = Path(paths.data)
    (folder / "valkey.conf").write_text(conf)
    command = [str(binaries.valkey_server()), str(folder / "valkey.conf")]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    client: Any = redis_client.Redis(
        port=instance.port, username=redis_acl.OPERATOR, password=OPERATOR, decode_responses=True
    )

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return bool(client.ping())
        except redis_client.ConnectionError:
            return False

    try:
        until(answers, 30, "the server answers")
        return client.config_get("*")
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.services
@pytest.mark.parametrize("name", ["redis", "redis-broker", "redis-cache"])
@pytest.mark.parametrize("persistence", ["aof", "rdb", "none"])
def test_a_server_takes_every_line(name: str, persistence: Persistence, tmp_path: Path) -> None:
    """The file's own value of every directive is what the server runs with; a folder's name may have spaces and quotes."""
    folder = tmp_path / 'a "folder" of Valkey\\s'
    folder.mkdir()
    instance = chosen(name, port=free_port(), persistence=persistence)
    paths = ServerPaths(str(folder), str(folder / "users.acl"), bind="127.0.0.1")
    conf = valkey_conf.server_conf(instance, paths)
    settings = running(conf, paths, instance)
    assert settings["dir"] == str(folder)
    assert settings["aclfile"] == str(folder / "users.acl")
    given = dict(line.split(" ", 1) for line in conf.splitlines())
    for directive in given.keys() - {"dir", "aclfile"}:
        assert settings[directive] == given[directive].strip('"'), directive
    assert {"appendonly", "save", "maxmemory", "shutdown-on-sigterm"} <= given.keys()


@pytest.mark.services
def test_a_line_that_the_server_does_not_know_is_noticed(tmp_path: Path) -> None:
    instance = chosen("redis", port=free_port())
    paths = ServerPaths(str(tmp_path), str(tmp_path / "users.acl"), bind="127.0.0.1")
    with pytest.raises(AssertionError, match="Bad directive"):
        running(valkey_conf.server_conf(instance, paths) + "tcp-keepalives 60\n", paths, instance)


def test_both_platforms_files_differ_only_in_paths_and_address(tmp_path: Path) -> None:
    """Of every server of every stack: the pods' ConfigMap, and the file of the process here."""
    for instance in instances():
        here = redis_config(StateFolder(tmp_path), instance).splitlines()
        pods = server_files(instance)["redis.conf"].splitlines()
        differing = {line.split(" ", 1)[0] for line in set(here) ^ set(pods)}
        assert differing == {"bind", "dir", "aclfile"}, instance.name
        assert [line.split(" ", 1)[0] for line in here if not line.startswith("bind ")] == [
            line.split(" ", 1)[0] for line in pods
        ]


def test_a_server_with_tls_listens_on_no_other_port() -> None:
    tls = plan(
        "test", stack_file.read("enterprise") | {"redis": {"tls": {"kind": "secret", "secret": "redis-tls"}}}
    ).instance("redis-broker")
    lines = valkey_conf.server_conf(tls, SERVER_PATHS).splitlines()
    assert {"port 0", f"tls-port {tls.port}", "tls-cert-file /etc/redis-tls/tls.crt"} <= set(lines)
    plain = valkey_conf.server_conf(tls.model_copy(update={"tls": None}), replace(SERVER_PATHS, certificates=""))
    assert f"port {tls.port}" in plain.splitlines()
    assert "tls" not in plain
