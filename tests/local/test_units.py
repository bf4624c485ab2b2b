"""The parts of the local platform that decide, without starting anything."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from supervisor.datatypes import dict_of_key_value_pairs  # pyright: ignore[reportMissingTypeStubs]

from local import own_superset, platform, preflight, state
from local.binaries import MissingProgramError, superset_python
from local.first_queries import chart_payload
from local.processes import MARK, UriError, database_uris, processes, supervisor_config
from local.progress import Steps
from local.state import StateFolder, ensure_secrets, write_private
from local.supervision import end_leftovers, leftovers
from ops import status
from runtime.superset.sample import dashboard_layout
from tests.local.conftest import write_stack
from topology.model import Topology
from topology.own_module import OwnModule
from topology.plan import plan
from topology.problems import MendableError


def topology_of(**settings: Any) -> Topology:
    return plan("here", {"topology": "minimal", "platform": "local"} | settings)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.make()
    return made


def test_secrets_are_made_once_and_only_their_owner_can_read_them(folder: StateFolder) -> None:
    topology = topology_of()
    first = ensure_secrets(folder, topology)
    assert ensure_secrets(folder, topology) == first
    assert len(set(first.values())) == len(first)
    assert all(len(value) >= 32 for value in first.values())
    for path in (folder.secrets, folder.password_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


def test_a_new_user_gets_its_secret_and_the_others_keep_theirs(folder: StateFolder) -> None:
    first = ensure_secrets(folder, topology_of())
    kept = {name: value for name, value in first.items() if name not in ("REDIS_OPERATOR_PASSWORD", "REDIS_CACHE_PASSWORD")}
    write_private(folder.secrets, json.dumps(kept))
    more = ensure_secrets(folder, plan("here", {"topology": "enterprise", "platform": "local"}))
    assert kept.items() < more.items()
    assert more.keys() == first.keys()
    assert more["REDIS_CACHE_PASSWORD"] != first["REDIS_CACHE_PASSWORD"]


def test_a_private_file_replaces_one_that_all_could_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_long_path_still_has_a_socket_that_the_kernel_takes(tmp_path: Path) -> None:
    deep = StateFolder(tmp_path / ("x" * 120) / "local")
    other = StateFolder(tmp_path / ("y" * 120) / "local")
    assert len(str(deep.supervisor_socket)) <= 107
    assert deep.supervisor_socket != other.supervisor_socket


@pytest.mark.services
def test_the_supervisor_reads_back_what_was_meant(folder: StateFolder) -> None:
    topology = topology_of(databases={"examples": {"sample": True}})
    secrets = ensure_secrets(folder, topology) | {"POSTGRES_PASSWORD": "100%s, sure"}
    wanted = processes(topology, folder, secrets)
    parsed = configparser.RawConfigParser()
    parsed.read_string(supervisor_config(folder, wanted))
    assert [name for name in parsed.sections() if name.startswith("program:")] == [f"program:{it.name}" for it in wanted]
    assert parsed["program:web"]["environment"].count('POSTGRES_PASSWORD="100%%s, sure"') == 1
    # What the web tier writes to stdout is the audit trail: apart from its log, and never rotated.
    web = parsed["program:web"]
    assert web["stderr_logfile"] == f"{folder.logs}/web.log"
    assert (web["stdout_logfile"], web["stdout_logfile_maxbytes"]) == (f"{folder.audit}/web.jsonl", "0")
    assert parsed["program:postgres"]["redirect_stderr"] == "true"
    assert parsed["program:worker-default"]["stopwaitsecs"] == str(topology.pools[0].grace_period_seconds)
    for process in wanted:
        assert not any(secret in part for secret in secrets.values() for part in process.command)
        assert "ADMIN_PASSWORD" not in process.environment


@pytest.mark.services
def test_stores_start_before_what_uses_them(folder: StateFolder) -> None:
    topology = plan("here", {"topology": "multi-tenant", "platform": "local", "tenants": {"acme": {"users": ["ann"]}}})
    names = [process.name for process in processes(topology, folder, ensure_secrets(folder, topology))]
    assert names == [
        "redis-broker",
        "redis-cache",
        "postgres",
        "web",
        "worker-acme",
        "worker-default",
        "worker-priority",
        "exporter",
        "beat",
    ]


def test_a_declared_database_needs_its_uri(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = topology_of(databases={"sales": {}, "web-events": {}, "open": {"uri": "postgresql://db.internal/open"}})
    secrets = ensure_secrets(folder, topology)
    with pytest.raises(UriError, match=r"(?s)DATABASE_URI_SALES is not set: .* of databases.sales.*DATABASE_URI_WEB_EVENTS"):
        database_uris(topology, secrets)
    monkeypatch.setenv("DATABASE_URI_SALES", "postgresql://u:p@db.internal/sales")
    monkeypatch.setenv("DATABASE_URI_WEB_EVENTS", "postgresql://u:p@db.internal/events")
    assert set(database_uris(topology, secrets)) == {"DATABASE_URI_SALES", "DATABASE_URI_WEB_EVENTS"}


def test_a_full_disk_is_refused_before_anything_starts(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder.root)._replace(free=100 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    wanted = topology_of(local={"web_port": 18088, "redis_port": 18089, "postgres_port": 18090})
    with pytest.raises(preflight.PreflightError, match=r"0\.1 GiB free, 2 GiB are needed"):
        preflight.check(preflight.ports(wanted), folder)


def test_two_commands_do_not_work_on_one_state(folder: StateFolder) -> None:
    with (
        preflight.only_one(folder),
        pytest.raises(preflight.PreflightError, match="another command"),
        preflight.only_one(folder),
    ):
        pass
    with preflight.only_one(folder):
        pass


def test_a_missing_environment_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERSET_ASYNC_PYTHON", "/nowhere/python")
    with pytest.raises(MissingProgramError, match="run `make up`"):
        superset_python()


def test_status_and_down_understand_the_state_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERSET_ASYNC_STATE", str(tmp_path))
    folder = StateFolder.of("old")
    folder.make()
    folder.topology.write_text(json.dumps({"stack": "old", "key-of-another-version": 1}))
    assert folder.read_topology() is None
    assert platform.status("old")["state"] == "stopped"


def test_status_shows_what_the_init_job_has_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUPERSET_ASYNC_STATE", str(tmp_path))
    folder = StateFolder.of("old")
    folder.make()
    folder.topology.write_text(topology_of().model_dump_json())
    assert platform.status("old")["warnings"] == []
    (folder.logs / "bootstrap.log").write_text("registering\nwarning: its role 'analyst' can write\nready\n")
    assert platform.status("old")["warnings"] == ["its role 'analyst' can write"]
    with pytest.raises(typer.Exit):
        status.status(quick=True, stack="old")
    assert "! its role 'analyst' can write" in capsys.readouterr().out


def test_a_dashboard_has_every_chart_in_a_row() -> None:
    layout = dashboard_layout("Three", [(7, "a"), (8, "b"), (9, "c")])
    rows = [layout[name]["children"] for name in layout["GRID_ID"]["children"]]
    assert rows == [["CHART-7", "CHART-8"], ["CHART-9"]]
    assert {layout[name]["meta"]["chartId"] for row in rows for name in row} == {7, 8, 9}


def test_the_first_chart_goes_past_the_cache() -> None:
    assert chart_payload(3)["force"] is True
    assert chart_payload(3)["datasource"] == {"id": 3, "type": "table"}


def test_a_persons_shell_in_the_state_folder_is_no_process_of_the_platform(folder: StateFolder) -> None:
    shell = subprocess.Popen(["sleep", "600"], cwd=folder.root)
    ours = subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: str(folder.root)})
    try:
        assert [process.pid for process in leftovers(folder)] == [ours.pid]
        assert end_leftovers(folder) == 1
        ours.wait(timeout=60)
        assert shell.poll() is None
    finally:
        for process in (shell, ours):
            process.kill()
            process.wait()


@pytest.mark.parametrize("command", [platform.down, platform.clean])
def test_a_stack_that_does_not_exist_cannot_be_stopped(
    command: Callable[[str, Steps], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERSET_ASYNC_STATE", str(tmp_path))
    said = StringIO()
    steps = Steps(Console(file=said, width=200))
    with pytest.raises(MendableError, match="minimall"):
        command("minimall", steps)
    command("minimal", steps)
    assert "stack minimal" in said.getvalue() and "nothing runs" in said.getvalue()


def test_the_program_that_runs_is_known_by_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("runtime", "topology", "local"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(state, "PROJECT", tmp_path)
    first = state.program_digest()
    (tmp_path / "runtime/more.py").write_text("x = 1")
    second = state.program_digest()
    (tmp_path / "runtime/more.py").write_text("x = 2")
    third = state.program_digest()
    # What processes are started by, too; not what Python makes of its files.
    (tmp_path / "runtime/start.sh").write_text("exec true")
    fourth = state.program_digest()
    (tmp_path / "runtime/more.pyc").write_text("compiled")
    assert len({first, second, third, fourth}) == 4
    assert state.program_digest() == fourth


def test_what_a_person_has_changed_since_the_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = write_stack(tmp_path, "changed")
    for name in ("SUPERSET_ASYNC_STACKS", "SUPERSET_ASYNC_STATE"):
        monkeypatch.setenv(name, environment[name])
    running = StateFolder.of("changed")
    running.make()
    write_private(running.topology, platform.planned("changed").model_dump_json(indent=1))
    write_private(running.program, state.program_digest())
    assert platform.out_of_date("changed", running) == []
    write_private(running.program, "of before")
    (said,) = platform.out_of_date("changed", running)
    assert "the program has changed" in said and "make up STACK=changed" in said
    write_stack(tmp_path, "changed", row_limit=7)
    assert ["the stack file" in said for said in platform.out_of_date("changed", running)] == [True, False]
    (tmp_path / "stacks/Pulumi.changed.yaml").unlink()
    (said,) = platform.out_of_date("changed", running)
    assert "cannot be used as it is now" in said


def test_a_uri_that_is_said_twice_or_lacks_its_driver_is_refused(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = topology_of(databases={"open": {"uri": "postgresql://db.internal/open"}, "sales": {}})
    secrets = ensure_secrets(folder, topology)
    monkeypatch.setenv("DATABASE_URI_OPEN", "postgresql://db.internal/other")
    monkeypatch.setenv("DATABASE_URI_SALES", "clickhousedb://u:p@db.internal/sales")
    with pytest.raises(UriError) as refused:
        database_uris(topology, secrets)
    assert "databases.open.uri and DATABASE_URI_OPEN both say" in str(refused.value)
    assert "Add the package clickhouse-connect to the image" in str(refused.value)
    assert "u:p" not in str(refused.value)


def test_the_teams_secrets_come_from_the_environment_and_each_that_is_missing_is_named(folder: StateFolder) -> None:
    oidc = {"issuer": "https://login.example.com", "client_id": "superset"}
    topology = topology_of(superset={"env": {"A": {}, "B": {}}, "sign_on": {"oidc": oidc}})
    with pytest.raises(own_superset.OwnSecretsError, match=r"A \(superset.env.A\), SIGN_ON_SECRET \(superset.sign_on\)"):
        own_superset.check(topology, {"B": "b"})
    given = {"A": '{"json": "x"}', "B": "it's", "SIGN_ON_SECRET": "s", "OTHER": "o"}
    own_superset.check(topology, given)
    for role, names in (("web", ("A", "B", "SIGN_ON_SECRET")), ("worker", ("A", "B")), ("init", ("A", "B"))):
        assert own_superset.environment(topology, folder, None, role, given) == {key: given[key] for key in names}
    for odd in ("a\nb", "a'b\"c", "ends with'"):
        with pytest.raises(own_superset.OwnSecretsError, match=r"A \(superset.env.A\) has a line break"):
            own_superset.check(topology, given | {"A": odd})


def test_a_changed_module_is_another_path_and_the_old_one_goes(folder: StateFolder) -> None:
    topology = topology_of(superset={"config_module": "own.py"})
    first, second = (OwnModule("own/__init__.py", {"own/__init__.py": f"A = {n}"}) for n in (1, 2))
    paths: list[Path] = []
    for module in (first, second):
        own_superset.write_module(folder, module)
        paths.append(Path(own_superset.environment(topology, folder, module, "worker", {})["SUPERSET_ASYNC_CONFIG_MODULE"]))
        assert paths[-1].read_text() == module.files["own/__init__.py"]
    assert not paths[0].exists()
    own_superset.write_module(folder, None)
    assert not any(folder.own.iterdir())


@pytest.mark.services
def test_the_supervisor_hands_on_what_has_quotes(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"A": '{"json": "100%"}', "B": "it's, a, list=x"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    topology = topology_of(superset={"env": {"A": {}, "B": {}}})
    wanted = processes(topology, folder, ensure_secrets(folder, topology))
    parsed = configparser.RawConfigParser()
    parsed.read_string(supervisor_config(folder, wanted))
    read = dict_of_key_value_pairs(parsed["program:web"]["environment"].replace("%%", "%"))
    assert given.items() <= read.items()
    exporter = dict_of_key_value_pairs(parsed["program:exporter"]["environment"].replace("%%", "%"))
    assert not given.keys() & exporter.keys()
