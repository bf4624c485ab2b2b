"""Where a command connects: options before environment before the local platform, and no secret to a stranger."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.errors import UsageError
from local.state import StateFolder
from ops.connection import Connection, LocalPlatform, Wanted, local_platform, queue_of, resolve
from topology.plan import plan
from topology.stack_file import read


def at_home(folder: Path) -> LocalPlatform:
    password = folder / "admin-password"
    password.write_text("local secret\n")
    return LocalPlatform("local", "http://127.0.0.1:8088", "admin", password, 1, plan("local", read("local")))


def secret(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def shown(connection: Connection) -> tuple[str, str | None, str | None, str | None]:
    return (connection.url, connection.username, connection.password, connection.token)


def test_the_local_platform_is_the_default(tmp_path: Path) -> None:
    connection = resolve(Wanted(), {}, at_home(tmp_path), None)
    assert shown(connection) == ("http://127.0.0.1:8088", "admin", "local secret", None)
    assert connection.home is not None
    assert connection.home.database_id == 1
    assert "local secret" not in repr(connection)


def test_options_win_over_the_environment_and_that_over_the_local_platform(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    password_file = secret(tmp_path, "password", "from file\n")
    token_file = secret(tmp_path, "token", "token from file\n")
    env = {
        "SUPERSET_ASYNC_URL": "https://env",
        "SUPERSET_ASYNC_USERNAME": "env-user",
        "SUPERSET_ASYNC_PASSWORD": "env-password",
    }
    token = {"SUPERSET_ASYNC_TOKEN": "env-token"}
    assert shown(resolve(Wanted(), env, home, None)) == ("https://env", "env-user", "env-password", None)
    assert shown(resolve(Wanted(), env | token, home, None)) == ("https://env", None, None, "env-token")
    options = Wanted("https://option/", "ada", password_file)
    assert shown(resolve(options, env | token, home, None)) == ("https://option", "ada", "from file", None)
    assert shown(resolve(Wanted(token_file=token_file), env, home, None)) == ("https://env", None, None, "token from file")


def test_the_local_password_goes_to_the_local_platform_and_its_administrator_only(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    with pytest.raises(UsageError, match="say who logs in by --username or SUPERSET_ASYNC_USERNAME"):
        resolve(Wanted(url="https://elsewhere"), {}, home, None)
    for wanted in (Wanted(url="https://elsewhere", username="admin"), Wanted(username="ada")):
        with pytest.raises(UsageError, match=r"no password for .* give --password-file or SUPERSET_ASYNC_PASSWORD"):
            resolve(wanted, {}, home, None)
    assert resolve(Wanted(url="https://elsewhere", username="admin"), {}, home, lambda _: "asked").password == "asked"
    assert resolve(Wanted(url="http://127.0.0.1:8088/"), {}, home, lambda _: "asked").password == "local secret"


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        (Wanted(), "started no local platform here .* --url or SUPERSET_ASYNC_URL"),
        (Wanted("https://host", "ada", Path("/nowhere")), "/nowhere: cannot be read .No such file"),
        (Wanted("https://host", "ada", Path("/dev/null")), "/dev/null: is empty"),
        (Wanted("https://host", "ada", Path("a"), Path("b")), "give one of them"),
        (Wanted("https://ada:pw@host", "ada"), "leave it out"),
    ],
)
def test_what_is_missing_is_said(wanted: Wanted, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        resolve(wanted, {}, None, None)


def test_the_local_platform_is_read_from_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERSET_ASYNC_STATE", str(tmp_path))
    assert local_platform("local") is None
    folder = StateFolder.of("local")
    folder.make()
    topology = plan("local", read("local"))
    folder.topology.write_text(topology.model_dump_json())
    found = local_platform("local")
    assert found == LocalPlatform("local", "http://127.0.0.1:8088", "admin", folder.password_file, None, topology)
    folder.bootstrapped.write_text('{"database_id": 3}')
    found = local_platform("local")
    assert found is not None
    assert found.database_id == 3
    folder.topology.write_text('{"of": "another version"}')
    assert local_platform("local") is None


def test_a_tenants_users_have_the_tenants_queue() -> None:
    topology = plan("multi-tenant", read("multi-tenant"))
    tenant = topology.tenants[0]
    assert queue_of(topology, tenant.users[0]) == tenant.queue
    assert queue_of(topology, "nobody's user") == topology.celery.default_queue
    assert queue_of(topology, None) is None
    by_role = topology.model_copy(update={"tenants": (tenant.model_copy(update={"roles": ("Finance",)}),)})
    assert queue_of(by_role, tenant.users[0]) == tenant.queue
    assert queue_of(by_role, "nobody's user") is None
    assert queue_of(plan("minimal", read("minimal")), None) == "default"
