"""A library whose internals were read in another version is refused at start, with the hook's name and a way out."""

from __future__ import annotations

import ast
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from local import binaries
from runtime.environment import versions
from tests.runtime.conftest import PROJECT
from tests.runtime.stacks import environment, topology

#: The distributions on whose internals each module leans, by what it imports of them or replaces.
HOOKS: dict[str, set[str]] = {
    "runtime.broker.draining": {"celery"},
    "runtime.broker.channels": {"celery", "kombu"},
    "runtime.broker.messages": {"kombu"},
    "runtime.broker.remote_control": {"celery"},
    "runtime.broker.requests": {"celery", "kombu"},
    "runtime.broker.reserved_tasks": {"celery"},
    "runtime.broker.result_backends": {"celery"},
    "runtime.broker.signatures": {"kombu"},
    "runtime.broker.task_messages": {"celery"},
    "runtime.queries.retention": {"celery"},
    "runtime.superset.cache_identity": {"apache-superset"},
    "runtime.superset.caches": {"apache-superset", "flask-caching"},
    "runtime.superset.chart_events": {"apache-superset", "flask-caching"},
    "runtime.superset.cancelling": {"apache-superset"},
    "runtime.superset.charts": {"apache-superset"},
    "runtime.superset.clock": {"apache-superset", "sqlalchemy"},
    "runtime.superset.connections": {"apache-superset", "sqlalchemy"},
    "runtime.superset.ended_sessions": {"apache-superset"},
    "runtime.superset.event_log": {"apache-superset"},
    "runtime.superset.execution": {"apache-superset", "celery"},
    "runtime.superset.first_statement": {"apache-superset"},
    "runtime.superset.few_commits": {"apache-superset", "sqlalchemy"},
    "runtime.superset.implementation": {"apache-superset", "sqlalchemy"},
    "runtime.superset.kept_connections": {"apache-superset", "sqlalchemy"},
    "runtime.superset.kept_rows": {"apache-superset", "sqlalchemy"},
    "runtime.superset.known_users": {"apache-superset", "flask-appbuilder", "sqlalchemy"},
    "runtime.superset.audited_changes": {"apache-superset", "sqlalchemy"},
    "runtime.superset.audited_requests": {"apache-superset", "flask-appbuilder"},
    "runtime.superset.bearer_tokens": {"apache-superset", "flask-appbuilder"},
    "runtime.superset.big_numbers": {"apache-superset"},
    "runtime.superset.embedding": {"apache-superset"},
    "runtime.superset.default_schemas": {"apache-superset"},
    "runtime.superset.doctor_api": {"apache-superset"},
    "runtime.superset.live_api": {"apache-superset"},
    "runtime.superset.login_rate": {"apache-superset"},
    "runtime.superset.lost_metadata": {"apache-superset", "sqlalchemy"},
    "runtime.superset.pings": {"apache-superset", "sqlalchemy"},
    "runtime.superset.owned_queries": {"apache-superset"},
    "runtime.superset.page": {"apache-superset"},
    "runtime.superset.preparation": {"apache-superset"},
    "runtime.superset.request_log": {"apache-superset"},
    "runtime.superset.request_schemas": {"flask-appbuilder"},
    "runtime.superset.sample": {"apache-superset"},
    "runtime.superset.script_guard": {"apache-superset"},
    "runtime.superset.sign_on": {"apache-superset", "flask-appbuilder"},
    "runtime.superset.slow_api": {"apache-superset"},
    "runtime.superset.sql_parser": {"apache-superset"},
    "runtime.superset.status": {"apache-superset", "flask-appbuilder", "sqlalchemy"},
    "runtime.superset.stops": {"apache-superset", "sqlalchemy"},
    "runtime.superset.submission": {"apache-superset", "celery"},
    "runtime.superset.synchronous": {"apache-superset", "sqlalchemy"},
    "runtime.superset.unkept_results": {"apache-superset"},
    "runtime.superset.usage_api": {"apache-superset"},
    "runtime.start.beat": {"apache-superset", "celery"},
    "runtime.superset.without_superset": {"apache-superset", "sqlalchemy"},
    "runtime.superset.worker_process": {"apache-superset", "celery"},
    "runtime.web.buffering_worker": {"gunicorn"},
}


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ("6.1.0", True),
        ("6.1.7", True),
        ("6.1.0rc2", True),
        ("6.0.0", False),
        ("6.10.0", False),
        ("7.0.0", False),
        ("", False),
    ],
)
def test_patch_releases_of_the_tested_version_are_taken(installed: str, expected: bool) -> None:
    assert versions.tested("apache-superset", installed) is expected


@pytest.mark.parametrize("distribution", versions.TESTED)
def test_another_version_of_any_distribution_is_refused_loudly(distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    major, minor = versions.TESTED[distribution]
    installed = {distribution: f"{major}.{minor}.9"}
    monkeypatch.setattr(metadata, "version", installed.__getitem__)
    versions.require("runtime.some_module", distribution)
    installed[distribution] = f"{major}.{minor + 1}.0"
    message = (
        rf"runtime\.some_module .*{distribution} {major}\.{minor}\.x, and {major}\.{minor + 1}\.0 is installed\. Install"
    )
    with pytest.raises(versions.UntestedVersionError, match=message):
        versions.require("runtime.some_module", distribution)


def test_one_that_is_not_installed_is_refused_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(versions.UntestedVersionError, match=r"sqlalchemy 1\.4\.x, and none is installed"):
        versions.require("runtime.some_module", "sqlalchemy")


def test_every_hook_asks_for_what_it_leans_on() -> None:
    found = {_module(path): names for path in PROJECT.glob("runtime/*/*.py") if (names := _required(path))}
    assert found == HOOKS
    assert set().union(*HOOKS.values()) == set(versions.TESTED)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts)


def _required(path: Path) -> set[str]:
    """The distributions of all calls of `versions.require` in a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "versions.require":
            names = [argument.value for argument in node.args[1:] if isinstance(argument, ast.Constant)]
            found |= {str(name) for name in names} or {"apache-superset"}
    return found


@pytest.mark.superset
@pytest.mark.parametrize("distribution", versions.TESTED)
def test_a_process_with_another_version_does_not_start(distribution: str, tmp_path: Path) -> None:
    """The configuration of a process is imported in Superset's environment, with one distribution of a version to come."""
    configuration = "gunicorn_config" if distribution == "gunicorn" else "superset_config"
    modules = sorted(module for module, names in HOOKS.items() if distribution in names)
    program = (
        "from importlib import metadata\n"
        "shipped = metadata.version\n"
        f"metadata.version = lambda name: '99.0' if name == {distribution!r} else shipped(name)\n"
        "from runtime.environment import versions\n"
        "try:\n"
        f"    import runtime.start.{configuration}\n"
        "except versions.UntestedVersionError as error:\n"
        "    print(str(error).split()[0])\n"
    )
    plan = topology("multi-tenant")
    file = tmp_path / "topology.json"
    file.write_text(plan.model_dump_json())
    env = {"PATH": "/usr/bin:/bin", "SUPERSET_ASYNC_TOPOLOGY": str(file), **environment(plan, "worker")}
    command = [str(binaries.superset_python()), "-c", program]
    done = subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.stdout.strip() in modules, f"{done.stdout}\n{done.stderr}"


@pytest.mark.superset
def test_the_locked_versions_are_tested_ones() -> None:
    program = "from runtime.environment import versions; versions.require('here', *versions.TESTED)"
    subprocess.run([str(binaries.superset_python()), "-c", program], check=True, cwd=PROJECT)
