"""The real Superset with each kind of a team's own settings: data, a module, refusals, and every way to log in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runtime.config.test_own import OIDC
from tests.runtime.conftest import PROJECT, Prepared, run_script
from tests.runtime.stacks import topology
from tools import superset_names

pytestmark = pytest.mark.superset

MODULE = str(PROJECT / "docs" / "examples" / "acme")
LDAP = {"server": "ldaps://127.0.0.1:1", "search": "dc=example,dc=com", "bind_user": "cn=superset"}
FOLDER = PROJECT / "docs" / "examples" / "moved"


def _moved(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What the stack of an example of a moved configuration says of Superset, and the secrets that it names."""
    stack = yaml.safe_load((FOLDER / name / "stack.yaml").read_text())["config"]
    superset = dict(stack["superset-async:superset"])
    if module := superset.get("config_module"):
        superset["config_module"] = str(FOLDER / name / module)
    return superset, {**dict.fromkeys(superset.get("env", {}), "s" * 32), "SIGN_ON_SECRET": "x"}


MOVED = {folder.name: _moved(folder.name) for folder in sorted(FOLDER.iterdir()) if folder.is_dir()}
#: What each Superset is started with, and the variables that its environment has beside.
KINDS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "data": (
        {
            "feature_flags": {"ENABLE_TEMPLATE_PROCESSING": True},
            "settings": {"APP_NAME": "Acme", "SMTP_PASSWORD": {"from_env": "MAIL"}},
            "own_settings": {"ACME_REGION": "eu"},
            "env": {"MAIL": {}},
        },
        {"MAIL": "s3cret"},
    ),
    "module": (
        {
            "feature_flags": {"ENABLE_TEMPLATE_PROCESSING": True},
            "config_module": MODULE,
            "env": {"ACME_BILLING_TOKEN": {}},
            "sign_on": {"oidc": OIDC},
        },
        {"ACME_BILLING_TOKEN": "t0ken", "SIGN_ON_SECRET": "x"},
    ),
    "refused": ({"config_module": "REFUSED"}, {}),
    "directory": ({"sign_on": {"ldap": LDAP}}, {"SIGN_ON_SECRET": "x"}),
    **MOVED,
    "remote_user": ({"sign_on": {"remote_user": {"proxies": ["127.0.0.1/32"]}}}, {}),
}


@pytest.fixture(scope="module")
def started(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    refused = tmp_path_factory.mktemp("own") / "superset_config.py"
    # The usual beginning of a team's file, of which nothing is the team's own.
    refused.write_text("from superset.config import *\nRESULTS_BACKEND = None\nSECRET_KEY = 'x'\nAPP_NAME = 'Other'\n")
    environments: dict[str, dict[str, str]] = {}
    for kind, (superset, env) in KINDS.items():
        said = {**superset, **({"config_module": str(refused)} if superset.get("config_module") == "REFUSED" else {})}
        plan = prepared.services.on_loopback(topology("enterprise", superset=said))
        environments[kind] = prepared.services.process_environment(plan, "web", f"own-{kind}") | env
    file = prepared.services.folder / "own.json"
    file.write_text(json.dumps(environments))
    return run_script("config.own_process", prepared.environment("web"), str(file))["started"]


def test_data_of_the_stack_file_is_what_superset_has(started: dict[str, Any]) -> None:
    found = started["data"]
    assert "error" not in found, found
    assert (found["app_name"], found["smtp"], found["own"]) == ("Acme", "s3cret", "eu")
    assert found["flags"] == ["ENABLE_TEMPLATE_PROCESSING", "GLOBAL_ASYNC_QUERIES"]
    assert found["manager"][0] == "SupersetSecurityManager"
    assert not found["transforms_urls"]


def test_a_module_is_chained_with_the_platform(started: dict[str, Any]) -> None:
    found = started["module"]
    assert "error" not in found, found
    assert found["manager"][:3] == ["SecurityManager", "AcmeSecurityManager", "SupersetSecurityManager"]
    assert found["mutated"] == "/* acme */ SELECT 1"
    # Superset has it under the name of its own function, and polls are answered by the team's.
    assert found["transforms_urls"]
    assert found["jinja"] == "SELECT 'FY2027'"
    # Theirs and ours: the connection's name, and the class that limits its statements.
    assert found["connect_args"]["application_name"] == "acme-superset"
    assert "connection_factory" in found["connect_args"]
    assert (found["page"], found["token"], found["started"]) == ("acme", "t0ken", True)
    assert found["usage_api"], "the platform's own part of the application is not there"
    assert found["provider"] == ["oidc"]


def test_what_the_platform_decides_is_refused_at_start_by_name(started: dict[str, Any]) -> None:
    said = started["refused"]["error"]
    assert "RESULTS_BACKEND is decided by the platform. Set caching and redis in the stack file" in said
    assert "SECRET_KEY is decided by the platform" in said
    # A star import sets none of what it brings.
    assert "2. " in said
    assert "3. " not in said


def test_every_way_to_log_in_starts(started: dict[str, Any]) -> None:
    assert "error" not in started["directory"], started["directory"]
    assert (started["directory"]["auth_type"], started["module"]["auth_type"], started["remote_user"]["auth_type"]) == (
        2,
        4,
        3,
    )
    assert started["module"]["login"][0] == started["directory"]["login"][0] == 200
    # No page that asks for a password stands before the user of the proxy, who is not named here.
    assert started["remote_user"]["login"][0] == 401


def test_each_moved_configuration_starts_with_what_it_had(started: dict[str, Any]) -> None:
    assert {name: started[name]["error"] for name in MOVED if "error" in started[name]} == {}
    assert (started["oauth"]["app_name"], started["oauth"]["provider"]) == ("Reports of Acme", ["keycloak"])
    assert started["ldap"]["auth_type"] == 2
    assert started["embedding"]["guests"] == ["Embedded", "s" * 32]
    assert started["mutators"]["mutated"] == "-- None\nSELECT 1"
    assert started["mutators"]["connect_args"]["application_name"] == "superset None"
    assert "connection_factory" in started["mutators"]["connect_args"]
    assert started["jinja"]["jinja"] == "SELECT 'FY2027'"


def test_the_list_of_names_is_that_of_the_installed_superset() -> None:
    assert superset_names.TARGET.read_text() == superset_names.document(), "run python -m tools.superset_names"
    assert Path(superset_names.site_packages()).is_dir()
