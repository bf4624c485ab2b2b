"""Log-in with a real directory over TLS: who is let in, as what, and that nobody is where the directory is not the one meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.conftest import Prepared, run_script
from tests.runtime.sign_on import slapd
from tests.runtime.sign_on.slapd import ADMINS, ANALYSTS, BIND_PASSWORD, BIND_USER, PEOPLE, USERS, Directory
from tests.runtime.stacks import topology
from tests.tls import Authority

pytestmark = pytest.mark.superset

ANN, BOB, CAROL, STRANGER = ([name, password] for name, (password, _) in USERS.items())
ROLES = {ADMINS: ["Admin"], ANALYSTS: ["Alpha", "sql_lab"]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    with slapd.running(tmp_path_factory.mktemp("slapd")) as found:
        yield found


def log_in(
    prepared: Prepared, directory: Directory, cases: dict[str, tuple[dict[str, Any], list[list[str]]]], secret: str
) -> dict[str, Any]:
    """Who is let in, by case: what its stack says of the directory beside the usual, and who tries."""
    environments: dict[str, dict[str, str]] = {}
    services = prepared.services
    for name, (changes, tried) in cases.items():
        ldap = {"server": directory.ldaps, "search": PEOPLE, "bind_user": BIND_USER, "ca_file": directory.ca_file}
        plan = topology(
            "enterprise",
            platform="local",
            local={"web_port": 8088, "redis_port": services.redis_port, "postgres_port": services.postgres_port},
            # Everybody tries from one address, as fast as they can.
            web={"login_rate": "1000 per second"},
            tenants={"acme": {"groups": [ANALYSTS], "pool": "shared"}},
            superset={"sign_on": {"ldap": ldap | changes, "roles": ROLES}},
        )
        environments[name] = services.process_environment(plan, "web", name) | {
            "SIGN_ON_SECRET": secret,
            "TRIED": json.dumps(tried),
        }
    file = services.folder / "directory.json"
    file.write_text(json.dumps(environments))
    return run_script("sign_on.log_in_process", prepared.environment("web"), str(file))["started"]


@pytest.fixture(scope="module")
def tried(prepared: Prepared, directory: Directory) -> dict[str, Any]:
    other = Authority(directory.folder / "another")
    return log_in(
        prepared,
        directory,
        {
            "ldaps": ({}, [ANN, BOB, [ANN[0], "wrong"], [ANN[0], ""], ["car*", CAROL[1]], STRANGER, ["nobody", "x"]]),
            "start_tls": ({"server": directory.ldap, "start_tls": True}, [BOB]),
            "filtered": ({"search_filter": f"(memberOf={ANALYSTS})"}, [ANN, BOB]),
            "another authority": ({"ca_file": str(other.certificate)}, [ANN]),
            "another name": ({"server": directory.misnamed}, [ANN]),
            "start_tls, another authority": (
                {"server": directory.ldap, "start_tls": True, "ca_file": str(other.certificate)},
                [ANN],
            ),
        },
        BIND_PASSWORD,
    )


REFUSED = {"api": 401, "form": 401}


def test_groups_of_the_directory_give_roles_and_a_tenant(tried: dict[str, Any]) -> None:
    ann, bob, *_ = tried["ldaps"]
    assert ann["user"] == ["ann", "Ann", "of Acme", "ann@acme.example"]
    assert ann["roles"] == ["Admin", "Public"]
    assert bob["roles"] == ["Alpha", "Public", "Tenant acme", "sql_lab"]
    assert ann["api"] == bob["api"] == 200


def test_nobody_is_let_in_without_their_own_password(tried: dict[str, Any]) -> None:
    """A wrong one, an empty one (an anonymous bind succeeds), a pattern that is one user's, the administrator's name, nobody."""
    assert [each["form"] for each in tried["ldaps"][2:]] == [401] * 5
    assert {each["api"] for each in tried["ldaps"][2:]} <= {400, 401}


def test_tls_may_begin_on_the_port_that_begins_without(tried: dict[str, Any]) -> None:
    assert tried["start_tls"][0]["roles"] == ["Alpha", "Public", "Tenant acme", "sql_lab"]


def test_the_filter_says_who_may_log_in(tried: dict[str, Any]) -> None:
    ann, bob = tried["filtered"]
    assert ann == REFUSED
    assert bob["form"] == 200


def test_a_directory_that_is_not_the_one_meant_gets_no_password(tried: dict[str, Any], directory: Directory) -> None:
    for case in ("another authority", "another name", "start_tls, another authority"):
        assert tried[case] == [REFUSED], case


@pytest.mark.further
def test_who_leaves_a_group_loses_its_roles_with_the_next_log_in(
    tried: dict[str, Any], prepared: Prepared, directory: Directory
) -> None:
    member = f"member: uid=bob,{PEOPLE}"
    directory.change(f"dn: {ADMINS}\nchangetype: modify\nadd: member\n{member}\n")
    directory.change(f"dn: {ANALYSTS}\nchangetype: modify\nadd: member\nmember: uid=ann,{PEOPLE}\n")
    directory.change(f"dn: {ANALYSTS}\nchangetype: modify\ndelete: member\n{member}\n")
    found = log_in(prepared, directory, {"later": ({}, [BOB])}, BIND_PASSWORD)
    assert found["later"][0]["roles"] == ["Admin", "Public"]
    # The account that looks users up must have its own password.
    assert log_in(prepared, directory, {"secret": ({}, [BOB])}, "wrong")["secret"] == [REFUSED]
