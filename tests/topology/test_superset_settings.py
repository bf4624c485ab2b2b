"""A team's own Superset in a stack file: each name exists, is the team's to decide, and its value may stand there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from topology import own_module, stack_file, superset_names
from topology.own_module import OwnModule
from topology.plan import plan
from topology.problems import StackError
from topology.superset_ownership import EMBEDDING, OBJECTS, OWNED, OWNED_FLAGS, SECRETS, SIGN_ON, assigned

OIDC = {"issuer": "https://login.identity.svc/realms/acme", "client_id": "superset"}
PORTAL = {"origins": ["https://portal.example.com"]}
LDAP = {"server": "ldaps://ldap.identity.svc", "search": "dc=example", "bind_user": "cn=superset"}


#: What the page says that is said.
REFUSALS = (stack_file.folder().parent / "docs" / "own-superset.md").read_text().splitlines()


def problems(superset: dict[str, Any], **more: Any) -> dict[str, str]:
    """What is wrong, by key."""
    try:
        plan("own", {"topology": "enterprise", "superset": superset} | more)
    except StackError as error:
        return {problem.key: str(problem) for problem in error.problems}
    return {}


def test_what_a_team_may_say_is_in_the_topology() -> None:
    superset = {
        "feature_flags": {"DASHBOARD_RBAC": True},
        "settings": {
            "APP_NAME": "Acme",
            "ROW_LIMIT": 500,
            "THEME_DEFAULT": {"token": {}},
            "SMTP_PASSWORD": {"from_env": "P"},
        },
        "own_settings": {"ACME_REGION": "eu"},
        "config_module": "../acme/own.py",
        "env": {"P": {}, "Q": {"secret": "acme", "key": "q"}},
        "sign_on": {"oidc": OIDC, "roles": {"admins": ["Admin"]}},
    }
    topology = plan("own", {"topology": "enterprise", "superset": superset})
    assert type(topology).model_validate_json(topology.model_dump_json()) == topology
    assert topology.superset.settings["ROW_LIMIT"] == 500
    assert topology.superset.sign_on is not None
    assert topology.superset.sign_on.peer == ("login.identity.svc", 443)


@pytest.mark.parametrize(
    ("superset", "key", "says"),
    [
        ({"feature_flags": {"DASHBORD_RBAC": True}}, "feature_flags.DASHBORD_RBAC", "Did you mean 'DASHBOARD_RBAC'?"),
        (
            {"feature_flags": {"GLOBAL_ASYNC_QUERIES": False}},
            "feature_flags.GLOBAL_ASYNC_QUERIES",
            "decided by the platform",
        ),
        ({"settings": {"APP_NAMEE": "x"}}, "settings.APP_NAMEE", "Did you mean 'APP_NAME'?"),
        ({"settings": {"ACME_REGION": "x"}}, "settings.ACME_REGION", "superset.own_settings"),
        ({"settings": {"CELERY_CONFIG": {}}}, "settings.CELERY_CONFIG", "Set celery, workers and pools"),
        ({"settings": {"SQL_MAX_ROW": 9}}, "settings.SQL_MAX_ROW", "row_limit"),
        ({"settings": {"FEATURE_FLAGS": {}}}, "settings.FEATURE_FLAGS", "superset.feature_flags"),
        ({"settings": {"SQL_QUERY_MUTATOR": "f"}}, "settings.SQL_QUERY_MUTATOR", "superset.config_module"),
        ({"settings": {"SMTP_PASSWORD": "s3cret"}}, "settings.SMTP_PASSWORD", "{from_env: SMTP_PASSWORD}"),
        ({"settings": {"TALISMAN_ENABLED": "false"}}, "settings.TALISMAN_ENABLED", "must be true or false"),
        ({"settings": {"ROW_LIMIT": "500"}}, "settings.ROW_LIMIT", "must be a number"),
        ({"settings": {"APP_NAME": 7}}, "settings.APP_NAME", "must be a text"),
        ({"settings": {"app_name": "x"}}, "settings.app_name", "must be in upper case"),
        ({"settings": {"APP_NAME": {"from_env": "NAME"}}}, "settings.APP_NAME", "Add superset.env.NAME"),
        (
            {"settings": {"EXTRA_SEQUENTIAL_COLOR_SCHEMES": [{"a": {"from_env": "X"}}]}},
            "settings.EXTRA_SEQUENTIAL_COLOR_SCHEMES",
            "X",
        ),
        ({"own_settings": {"APP_NAME": "x"}}, "own_settings.APP_NAME", "superset.settings.APP_NAME"),
        ({"env": {"PYTHONPATH": {}}}, "env.PYTHONPATH", "the platform or its programs read"),
        ({"env": {"POSTGRES_PASSWORD": {}}}, "env.POSTGRES_PASSWORD", "the platform or its programs read"),
        ({"env": {"A": {"key": "x"}}}, "env.A", "has a key and no secret"),
        ({"config_module": "own module.py"}, "config_module", "must be a Python file, or a folder"),
        ({"sign_on": {"oidc": OIDC, "ldap": LDAP}}, "sign_on", "must have one way to log in"),
        ({"embedding": {"origins": []}}, "embedding.origins", "must have at least 1"),
        ({"embedding": PORTAL | {"role": "Public"}}, "embedding.role", "must be a role of the guests' own"),
        (
            {"embedding": PORTAL, "feature_flags": {"EMBEDDED_SUPERSET": False}},
            "feature_flags.EMBEDDED_SUPERSET",
            "contradicts superset.embedding",
        ),
        (
            {"embedding": PORTAL, "settings": {"TALISMAN_ENABLED": False}},
            "settings.TALISMAN_ENABLED",
            "it is how browsers learn which sites superset.embedding lets in",
        ),
        (
            {"embedding": PORTAL, "settings": {"GUEST_ROLE_NAME": "Public"}},
            "settings.GUEST_ROLE_NAME",
            "Set superset.embedding.role",
        ),
        (
            {"sign_on": {"oidc": OIDC | {"issuer": "http://login.example.com"}}},
            "sign_on.oidc.issuer",
            "must be an https URL",
        ),
        ({"sign_on": {"oidc": OIDC | {"scopes": ["email"]}}}, "sign_on.oidc.scopes", "must have openid"),
        ({"sign_on": {"oidc": OIDC | {"provider": "google"}}}, "sign_on.oidc.required_claims", "whoever has an account"),
        ({"sign_on": {"ldap": LDAP | {"server": "ldap://10.0.0.9"}}}, "sign_on.ldap.start_tls", "passwords in clear"),
        ({"sign_on": {"ldap": LDAP | {"start_tls": True}}}, "sign_on.ldap.start_tls", "ldaps:// speaks TLS at once"),
        ({"sign_on": {"ldap": LDAP | {"ca_file": "/a"}}}, "sign_on.ldap.ca_file", "platform local only"),
        ({"sign_on": {"remote_user": {"proxies": []}}}, "sign_on.remote_user.proxies", "at least 1"),
        ({"sign_on": {"roles": {"a": ["Admin"]}}}, "sign_on.roles", "needs groups"),
        (
            {"settings": {"AUTH_TYPE": 4}, "sign_on": {"oidc": OIDC}},
            "settings.AUTH_TYPE",
            "Set superset.sign_on",
        ),
        ({"colour": 1}, "colour", "is no key of a stack file"),
    ],
)
def test_each_refusal_names_the_key_and_the_way_out(superset: dict[str, Any], key: str, says: str) -> None:
    found = problems(superset)
    assert says in found[f"superset.{key}"], found
    assert len(found) == 1
    assert "s3cret" not in str(found)
    assert found[f"superset.{key}"] in REFUSALS, "docs/own-superset.md does not have its words"


@pytest.mark.parametrize(
    ("origin", "rule"),
    [
        ("http://portal.example.com", "must begin with https://"),
        ("portal.example.com", "must begin with https://"),
        ("ftp://localhost", "must begin with https://"),
        ("http://localhost.example.com", "must begin with https://"),
        ("https://*.example.com", "must name one site: a wildcard"),
        ("*", "must name one site: a wildcard"),
        ("https://portal.example.com/", "must end with the host or port"),
        ("https://portal.example.com/reports", "must end with the host or port"),
        ("https://portal.example.com?a=1", "must end with the host or port"),
        ("https://portal.example.com#", "must end with the host or port"),
        ("https://Portal.example.com", "must have a host name in lower case"),
        ("https://ann:pw@portal.example.com", "must have a host name in lower case"),
        ("https://portal_example.com; script-src", "must have a host name in lower case"),
        ("https://", "must have a host name in lower case"),
        ("https://portal.example.com:443", "must leave out the port"),
        ("https://portal.example.com:", "must have a host name in lower case"),
        ("http://localhost:80", "must leave out the port"),
        ("https://portal.example.com:99999", "must be the origin of a page"),
    ],
)
def test_what_is_no_origin_of_one_safe_site_is_refused_once_with_its_rule(origin: str, rule: str) -> None:
    given = {"topology": "enterprise", "superset": {"embedding": {"origins": ["https://a.example.com", origin]}}}
    with pytest.raises(StackError) as error:
        plan("own", given)
    (problem,) = error.value.problems
    assert problem.key.startswith("superset.embedding.origins")
    assert rule in str(problem)
    assert "Write scheme, host" in str(problem)


@pytest.mark.parametrize(
    "origin",
    ["https://portal.example.com", "https://portal.example.com:8443", "http://localhost:3000", "http://127.0.0.1:3000"],
)
def test_a_site_is_let_in_as_its_browser_sends_it(origin: str) -> None:
    topology = plan("own", {"topology": "enterprise", "superset": {"embedding": {"origins": [origin]}}})
    assert topology.superset.embedding is not None
    assert topology.superset.embedding.origins == (origin,)
    assert topology.embedding


def test_log_in_settings_are_the_teams_where_no_sign_on_is_said() -> None:
    assert problems({"settings": {"AUTH_ROLE_PUBLIC": "Public", "AUTH_TYPE": 1}}) == {}


def test_a_tenants_groups_need_a_sign_on_that_says_them() -> None:
    tenants = {"acme": {"groups": ["analysts"]}}
    assert "tenants.acme.groups" in problems({}, tenants=tenants)
    assert "superset.sign_on.sync_roles" in problems({"sign_on": {"oidc": OIDC, "sync_roles": False}}, tenants=tenants)
    assert problems({"sign_on": {"oidc": OIDC}}, tenants=tenants) == {}
    planned = plan("own", {"topology": "enterprise", "superset": {"sign_on": {"oidc": OIDC}}, "tenants": tenants})
    assert planned.tenants[0].roles == ("Tenant acme",)


def test_embedding_cannot_be_off_where_guests_are_a_tenant() -> None:
    tenants = {"acme": {"guests": [{"claim": "org", "value": "acme"}]}}
    assert "superset.feature_flags.EMBEDDED_SUPERSET" in problems(
        {"feature_flags": {"EMBEDDED_SUPERSET": False}}, tenants=tenants
    )


def test_this_machine_has_no_secrets_of_kubernetes() -> None:
    superset = {"env": {"A": {"secret": "s"}}, "sign_on": {"oidc": OIDC | {"client_secret": {"secret": "s", "key": "k"}}}}
    found = problems(superset, topology="minimal", platform="local")
    assert set(found) == {"superset.env.A.secret", "superset.sign_on.oidc.client_secret"}


def test_reports_have_their_scheduler_where_they_are_on() -> None:
    planned = plan("own", {"topology": "minimal", "superset": {"feature_flags": {"ALERT_REPORTS": True}}})
    assert {"reports.scheduler", "reports.prune_log"} <= {job.task for job in planned.beat.jobs}


def test_the_tables_are_of_names_that_exist() -> None:
    assert (OWNED.keys() | SIGN_ON | EMBEDDING.keys() | OBJECTS | SECRETS) <= superset_names.SETTINGS
    assert OWNED_FLAGS.keys() <= superset_names.FEATURE_FLAGS
    assert not OWNED.keys() & OBJECTS


def test_the_source_of_a_module_says_what_it_sets() -> None:
    source = """
import X
A = 1
if True:
    B: int = 2
else:
    (C, D) = 3, 4
try:
    E = 5
except ValueError:
    F = 6
def G(): H = 7
lower = 8
for _ in (): I = 9
"""
    assert {name for name, _ in assigned(source)} == set("ABCDEFGI")
    assert dict(assigned(source))["A"] == 3


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"own.py": "X = 1\nCELERY_CONFIG = {}"},
            "own.py:2: sets CELERY_CONFIG, which is decided by the platform. Set celery",
        ),
        ({"own.py": "APP_NAME = 1"}, "sets APP_NAME, and so does superset.settings.APP_NAME. Keep one"),
        ({"own.py": "SMTP_PASSWORD = 's3cret'"}, "os.environ"),
        ({"own.py": "AUTH_TYPE = 1"}, "Set superset.sign_on in the stack file"),
        ({"own.py": "def f(:"}, "is no Python: own.py:1"),
        ({"own.py": "'" + "x" * 1_000_000 + "'"}, "a ConfigMap holds 1000000"),
        ({"own/other.py": ""}, "is a folder without __init__.py"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_refused_before_anything_starts(files: dict[str, str], says: str) -> None:
    module = OwnModule("own.py" if "own.py" in files else "own/__init__.py", files)
    (problem,) = own_module.check("own.py", module, signs_on=True, embeds=True, settings={"APP_NAME": "x"})
    assert says in str(problem)
    assert str(problem) in REFUSALS, "docs/own-superset.md does not have its words"


def test_files_are_read_beside_the_stack_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stacks").mkdir()
    folder = tmp_path / "acme"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "x.py").write_text("CELERY_CONFIG = 1")
    (folder / "__init__.py").write_text("A = 1")
    (folder / "sql").mkdir()
    (folder / "sql" / "query.sql").write_text("SELECT 1")
    monkeypatch.setenv("SUPERSET_ASYNC_STACKS", str(tmp_path / "stacks"))
    topology = plan("own", {"topology": "minimal", "superset": {"config_module": "../acme"}})
    module, found = own_module.read(topology)
    assert module is not None
    assert not found
    assert module.entry == "acme/__init__.py"
    assert set(module.files) == {"acme/__init__.py", "acme/sql/query.sql"}
    before = module.digest
    (folder / "sql" / "query.sql").write_text("SELECT 2")
    again, _ = own_module.read(topology)
    assert again is not None
    assert again.digest != before
    (folder / "logo.png").write_bytes(b"\x89PNG\xff")
    assert "no UTF-8 text" in str(own_module.read(topology)[1][0])
    missing = plan("own", {"topology": "minimal", "superset": {"config_module": "../nowhere.py"}})
    assert "cannot be read" in str(own_module.read(missing)[1][0])
    elsewhere = plan("own", {"topology": "minimal", "superset": {"config_module": "/app/own/acme.py"}})
    assert own_module.read(elsewhere) == (None, [])
    assert own_module.in_image(elsewhere) == "/app/own/acme.py"
