"""A team's own settings over the platform's: what each may say, and what holds whatever a function of the team's returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from runtime.config import own, render
from runtime.config.sign_on import AUTH_DB, AUTH_OAUTH
from runtime.environment.secrets import ConfigurationError
from runtime.start import own_module
from runtime.superset.sign_on import TrustedHeader, claim, tenants_roles, user_info
from tests.runtime.stacks import STACKS, environment, topology
from topology.settings.sign_on import Oidc
from topology.superset_ownership import OBJECTS, OWNED, OWNED_FLAGS

OIDC = {"issuer": "https://login.identity.svc", "client_id": "superset"}


def rendered(superset: dict[str, Any], **env: str) -> dict[str, Any]:
    plan = topology("enterprise", superset=superset)
    return render(plan, environment(plan) | env)


@pytest.mark.parametrize("stack", STACKS)
def test_whatever_the_platform_sets_is_its_own_or_has_a_rule_of_its_own(stack: str) -> None:
    """A setting of ours that the team could silently replace would be one that nobody decided about."""
    plan = topology(stack)
    emitted: dict[str, Any] = render(plan, environment(plan))
    shared = {
        # Whether and how users' browsers are trusted is the team's to say; these are our defaults.
        "SESSION_COOKIE_SAMESITE",
        "GLOBAL_ASYNC_QUERIES_JWT_COOKIE_SAMESITE",
        "WTF_CSRF_ENABLED",
        "TALISMAN_ENABLED",
        "TALISMAN_CONFIG",
        "SQL_VALIDATORS_BY_ENGINE",
        "GUEST_TOKEN_JWT_SECRET",
        "RATELIMIT_ENABLED",
        # Within SQL_MAX_ROW and the time of a request, which are ours.
        "ROW_LIMIT",
        "DISPLAY_MAX_ROW",
        "DEFAULT_SQLLAB_LIMIT",
        "SQLLAB_TIMEOUT",
    }
    assert set(emitted) <= OWNED.keys() | own.CHAINS.keys() | shared
    assert {name for name in emitted if name in OBJECTS} <= own.CHAINS.keys()
    assert {name for name, on in emitted["FEATURE_FLAGS"].items() if on} <= OWNED_FLAGS.keys()


def test_data_of_the_stack_is_laid_over_ours_and_takes_secrets_from_the_environment() -> None:
    settings = rendered(
        {
            "feature_flags": {"DASHBOARD_RBAC": True},
            "settings": {"APP_NAME": "Acme", "SESSION_COOKIE_SAMESITE": "None", "SMTP_PASSWORD": {"from_env": "MAIL"}},
            "own_settings": {"ACME": [{"token": {"from_env": "MAIL"}}]},
            "env": {"MAIL": {}},
        },
        MAIL="s3cret",
    )
    assert settings["FEATURE_FLAGS"]["DASHBOARD_RBAC"] is settings["FEATURE_FLAGS"]["GLOBAL_ASYNC_QUERIES"] is True
    assert (settings["APP_NAME"], settings["SESSION_COOKIE_SAMESITE"]) == ("Acme", "None")
    assert settings["SMTP_PASSWORD"] == "s3cret"
    assert settings["ACME"] == [{"token": "s3cret"}]


def test_a_variable_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"MAIL \(superset.env\) is not in the environment"):
        rendered({"env": {"MAIL": {}}})
    with pytest.raises(ConfigurationError, match="SIGN_ON_SECRET is not set"):
        rendered({"sign_on": {"oidc": OIDC}})


def test_only_who_logs_people_in_needs_the_sign_ons_secret() -> None:
    plan = topology("enterprise", superset={"sign_on": {"oidc": OIDC}})
    for role in ("worker", "beat", "init"):
        settings = cast("dict[str, Any]", render(plan, environment(plan, role)))
        assert settings["OAUTH_PROVIDERS"][0]["remote_app"]["client_secret"] == ""


def test_everything_that_a_module_may_not_set_is_said_at_once() -> None:
    plan = topology("enterprise", superset={"settings": {"APP_NAME": "Acme"}, "sign_on": {"oidc": OIDC}})
    ours = render(plan, environment(plan) | {"SIGN_ON_SECRET": "x"})
    module = {
        "RESULTS_BACKEND": 1,
        "SECRET_KEY": "x",
        "APP_NAME": "Other",
        "AUTH_TYPE": 1,
        "FEATURE_FLAGS": {"GLOBAL_ASYNC_QUERIES": False},
    }
    with pytest.raises(ConfigurationError) as caught:
        own.with_module(plan, ours, module, "/own/acme.py")
    said = str(caught.value)
    for name in (
        "RESULTS_BACKEND is decided",
        "SECRET_KEY is decided",
        "APP_NAME is set by superset.settings",
        "AUTH_TYPE is",
    ):
        assert name in said
    assert "FEATURE_FLAGS: GLOBAL_ASYNC_QUERIES is decided by the platform" in said
    assert "/own/acme.py cannot be loaded" in said


def test_the_page_has_the_words_of_a_refusal_at_start() -> None:
    plan = topology("enterprise").model_copy(update={"stack": "acme"})
    with pytest.raises(ConfigurationError) as caught:
        own.with_module(plan, render(plan, environment(plan)), {"RESULTS_BACKEND": 1, "SECRET_KEY": "x"}, "/app/own/acme.py")
    assert str(caught.value) in (Path(__file__).parents[3] / "docs" / "own-superset.md").read_text()


def chained(name: str, ours: object, theirs: object) -> Any:
    plan = topology("enterprise")
    return own.with_module(plan, {name: ours, "FEATURE_FLAGS": {}}, {name: theirs}, "acme.py")[name]


def test_functions_of_both_are_called_and_the_platforms_limits_come_last() -> None:
    seen: list[str] = []

    def note(who: str) -> Callable[..., Any]:
        return lambda *_, **__: seen.append(who)

    chained("FLASK_APP_MUTATOR", note("ours"), note("theirs"))(object())
    assert seen == ["ours", "theirs"]
    connect = chained(
        "DB_CONNECTION_MUTATOR",
        lambda uri, params, *_: (uri, {**params, "limit": 30}),
        lambda uri, params, *_: (f"{uri}?theirs", {**params, "limit": 9999, "name": "acme"}),
    )
    assert connect("db", {}, "user", None, None) == ("db?theirs", {"limit": 30, "name": "acme"})
    mutate = chained("SQL_QUERY_MUTATOR", lambda sql, **_: f"guarded({sql})", lambda sql, **_: f"/* acme */ {sql}")
    assert mutate("SELECT 1", database=None) == "guarded(/* acme */ SELECT 1)"
    assert chained("SQL_QUERY_MUTATOR", None, note("alone")) is not None


def test_both_event_loggers_write_each_event() -> None:
    class Logger:
        def __init__(self, name: str) -> None:
            self.name = name
            self.seen: list[str] = []

        def log(self, user: int, action: str, **_: object) -> None:
            self.seen.append(f"{self.name} {action}")

    ours, theirs = Logger("ours"), Logger("theirs")
    both = chained("EVENT_LOGGER", ours, theirs)
    assert isinstance(both, Logger)
    both.log(1, "open", records=[])
    assert (ours.seen, theirs.seen) == (["ours open"], ["theirs open"])
    assert chained("EVENT_LOGGER", None, theirs) is theirs

    class Ours(Logger):
        """Made of the same."""

    assert chained("EVENT_LOGGER", Ours("ours"), theirs) is theirs


def test_both_stats_loggers_are_told_each_event() -> None:
    class Logger:
        def __init__(self, name: str) -> None:
            self.name = name
            self.seen: list[tuple[Any, ...]] = []

        def incr(self, key: str) -> None:
            self.seen.append((self.name, key))

        def timing(self, key: str, value: float) -> None:
            self.seen.append((self.name, key, value))

        decr, gauge = incr, timing

    class Theirs(Logger):
        """With what only their own code calls."""

        def flush(self) -> int:
            return len(self.seen)

    ours, theirs = Logger("ours"), Theirs("theirs")
    both = chained("STATS_LOGGER", ours, theirs)
    both.incr("a")
    both.timing("b", value=2.5)
    both.gauge("c", 1)
    both.decr("d")
    for logger in (ours, theirs):
        assert logger.seen == [(logger.name, *said) for said in (("a",), ("b", 2.5), ("c", 1), ("d",))]
    assert (isinstance(both, Theirs), both.flush()) == (True, 4)
    assert chained("STATS_LOGGER", None, theirs) is theirs


def test_lists_and_mappings_of_both_stand_together_and_a_clash_is_refused() -> None:
    assert chained("BLUEPRINTS", ["ours"], ["theirs"]) == ["ours", "theirs"]
    assert chained("JINJA_CONTEXT_ADDONS", None, {"a": 1}) == {"a": 1}
    assert chained("JINJA_CONTEXT_ADDONS", {"b": 2}, {"a": 1}) == {"a": 1, "b": 2}
    with pytest.raises(ConfigurationError, match="JINJA_CONTEXT_ADDONS: a is the platform's already"):
        chained("JINJA_CONTEXT_ADDONS", {"a": 2}, {"a": 1})


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("json.py", "", "named like the installed module 'json'"),
        ("acme.py", "import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("acme.py", "A = 1 / 0", r"ZeroDivisionError: division by zero \(.*acme.py:1\)"),
    ],
)
def test_a_module_that_cannot_be_loaded_says_where(tmp_path: Path, name: str, source: str, says: str) -> None:
    (tmp_path / name).write_text(source)
    with pytest.raises(ConfigurationError, match=says):
        own_module.load(tmp_path / name)
    with pytest.raises(ConfigurationError, match="there is no file"):
        own_module.load(tmp_path / "other.py")


def test_a_sign_on_without_provider_is_supersets_own_and_registers_nobody() -> None:
    settings = rendered({"sign_on": {}})
    assert settings["AUTH_TYPE"] == AUTH_DB
    assert settings["AUTH_USER_REGISTRATION"] is False


def test_a_provider_is_described_by_its_issuer_alone() -> None:
    settings = rendered({"sign_on": {"oidc": OIDC, "roles": {"admins": ["Admin"]}}}, SIGN_ON_SECRET="s3cret")
    assert settings["AUTH_TYPE"] == AUTH_OAUTH
    (provider,) = settings["OAUTH_PROVIDERS"]
    assert provider["remote_app"]["server_metadata_url"] == "https://login.identity.svc/.well-known/openid-configuration"
    assert provider["remote_app"]["client_secret"] == "s3cret"
    assert settings["AUTH_ROLES_MAPPING"] == {"admins": ["Admin"]}
    assert settings["AUTH_ROLES_SYNC_AT_LOGIN"] is True


@pytest.mark.parametrize(
    ("oidc", "claims", "expected"),
    [
        ({}, {"preferred_username": "ann", "groups": ["a", "b"]}, {"username": "ann", "role_keys": ["a", "b"]}),
        ({}, {"preferred_username": "ann", "groups": "a"}, {"username": "ann", "role_keys": ["a"]}),
        (
            {"groups_claim": "realm_access.roles"},
            {"preferred_username": "ann", "realm_access": {"roles": ["r"]}},
            {"role_keys": ["r"]},
        ),
        (
            {"groups_claim": "https://acme.com"},
            {"preferred_username": "ann", "https://acme.com": ["r"]},
            {"role_keys": ["r"]},
        ),
        (
            {"provider": "google", "required_claims": {"hd": "acme.com"}},
            {"email": "a@acme.com", "hd": "acme.com"},
            {"username": "a@acme.com"},
        ),
        ({"provider": "google", "required_claims": {"hd": "acme.com"}}, {"email": "a@evil.com"}, {}),
        ({"provider": "google"}, {"email": "a@acme.com", "email_verified": False}, {}),
        ({}, {"email": "a@acme.com"}, {}),
        ({}, {"preferred_username": ["ann"]}, {}),
    ],
)
def test_claims_become_a_user_or_let_nobody_in(
    oidc: dict[str, Any], claims: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = user_info(Oidc.model_validate(OIDC | oidc), claims)
    assert expected.items() <= found.items()
    assert bool(found) == bool(expected)


def test_a_dotted_claim_that_leads_nowhere_is_none() -> None:
    assert claim({"a": {"b": 1}}, "a.b.c") is None
    assert claim({"a": {"b": 1}}, "a.b") == 1


def test_a_tenants_groups_give_its_role() -> None:
    plan = topology(
        "multi-tenant",
        superset={"sign_on": {"oidc": OIDC}},
        tenants={"a": {"groups": ["x", "y"]}, "b": {"groups": ["z"]}, "c": {"users": ["ann"]}},
    )
    assert tenants_roles(plan) == {"x": ["Tenant a"], "y": ["Tenant a"], "z": ["Tenant b"]}


@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        ({"REMOTE_ADDR": "10.1.2.3"}, True),
        ({"REMOTE_ADDR": "10.2.2.3"}, False),
        # What a client says of itself counts for nothing.
        ({"REMOTE_ADDR": "10.1.2.3", "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": "192.0.2.1"}}, False),
        ({"REMOTE_ADDR": "192.0.2.1", "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": "10.1.2.3"}}, True),
        ({"REMOTE_ADDR": ""}, False),
        ({}, False),
    ],
)
def test_only_a_proxy_says_who_the_user_is(environ: dict[str, Any], kept: bool) -> None:
    import ipaddress

    seen: dict[str, Any] = {}
    TrustedHeader(lambda given, _: seen.update(given), "HTTP_X_USER", [ipaddress.ip_network("10.1.0.0/16")])(
        {"HTTP_X_USER": "ann", **environ}, lambda *_: None
    )
    assert ("HTTP_X_USER" in seen) is kept
