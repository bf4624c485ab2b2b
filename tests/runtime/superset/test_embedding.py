"""Dashboards in another site: a guest without cookies has his own channel, his own role, and nothing of who is logged in."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.superset.embedding import channel, framed_by
from tests.runtime.conftest import Prepared, run_script
from topology.settings.embedding import Embedding

pytestmark = pytest.mark.superset

PORTAL = "https://portal.example.com"
TOKEN: dict[str, Any] = {"user": {"username": "eve"}, "resources": [], "rls_rules": [], "iat": 1, "exp": 2}


@pytest.fixture(scope="module")
def found(prepared: Prepared) -> dict[str, Any]:
    embedding = Embedding(origins=(PORTAL,), role="Portal guest")
    own = prepared.topology.superset.model_copy(update={"embedding": embedding})
    plan = prepared.topology.model_copy(update={"superset": own, "embedding": True})
    return run_script("superset.embedded_process", prepared.services.process_environment(plan, "web", "embedding"))


def test_the_init_job_makes_a_role_for_guests_that_has_no_data_and_leaves_public_alone(found: dict[str, Any]) -> None:
    role = found["role"]
    assert (role["made"], role["said"]) == ([True, False], ["giving role 'Portal guest' what guests need"])
    assert role["changes stay"]
    assert role["data"] == []
    assert role["public"] == [0, 0]
    assert found["me"] == ["Portal guest"]


def test_only_the_embedded_dashboard_may_be_framed_and_only_by_the_stacks_sites(found: dict[str, Any]) -> None:
    assert found["framed"] == [200, None, f"frame-ancestors 'self' {PORTAL}"]
    assert found["not framed"] == [200, "SAMEORIGIN"]


def test_a_guest_without_cookies_is_told_of_his_charts_also_with_a_new_token(found: dict[str, Any]) -> None:
    assert found["sent"] == 202
    assert found["told"] == {"guest": True, "renewed": True}
    assert set(map(str, found["others told"].values())) == {"[]"}
    assert found["cookies"] == []
    assert found["forged"] == 401


def test_a_guest_stops_his_own_chart_and_no_other(found: dict[str, Any]) -> None:
    assert found["others stop"] == {"another page": 404, "another guest": 404, "other rows": 404}
    assert found["stop"]["result"]["stopped"] is True


def test_what_a_guest_chooses_is_kept_without_a_cookie_to_compare_with(found: dict[str, Any]) -> None:
    assert found["state"] == 201


def test_who_is_logged_in_beside_is_a_guest_here_and_stays_logged_in(found: dict[str, Any]) -> None:
    assert found["beside a log-in"]["guest"] == ["Portal guest"]
    assert found["beside a log-in"]["user"] == "ada"


def test_pages_of_the_stacks_sites_alone_may_call_the_api_and_without_cookies(found: dict[str, Any]) -> None:
    assert found["cors"][PORTAL] == [PORTAL, "x-guesttoken", None]
    assert found["cors"]["https://evil.example.com"] == [None, None, None]


def test_who_comes_with_a_token_is_not_taken_for_public(found: dict[str, Any]) -> None:
    """One permission on Public, and an administrator's client saw what strangers see: `make up` failed by it."""
    assert found["public"] == {"administrator": [200, 1], "stranger": [200, 0], "wrong": [422, None]}


def test_a_channel_is_a_guests_and_a_pages() -> None:
    mine = channel("s" * 32, TOKEN, "page-1")
    assert mine == channel("s" * 32, TOKEN | {"iat": 7, "exp": 9}, "page-1")
    others = [
        channel("t" * 32, TOKEN, "page-1"),
        channel("s" * 32, TOKEN, "page-2"),
        channel("s" * 32, TOKEN | {"user": {"username": "mallory"}}, "page-1"),
        channel("s" * 32, TOKEN | {"rls_rules": [{"clause": "1 = 0"}]}, "page-1"),
    ]
    assert len({mine, *others}) == 5


@pytest.mark.parametrize(
    "policy",
    [
        None,
        {"default-src": ["'self'"]},
        {"default-src": ["'self'"], "frame-ancestors": ["*"]},
        "default-src 'self'",
        "default-src 'self'; frame-ancestors *;",
    ],
)
def test_a_teams_own_policy_keeps_its_other_lines_and_names_no_other_site(policy: Any) -> None:
    found: Any = framed_by(policy, (PORTAL,))
    text = found if isinstance(found, str) else "; ".join(f"{name} {' '.join(given)}" for name, given in found.items())
    assert text.count("frame-ancestors") == 1
    assert f"frame-ancestors 'self' {PORTAL}" in text
    assert ("default-src 'self'" in text) == (policy is not None)
