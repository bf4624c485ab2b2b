"""`superset-async init` and `explain`: a first stack file that plans, and what each key is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.explain import changes
from ops.first_stack import DATABASES, PLATFORMS, SIGN_ONS, TOPOLOGIES
from topology import presets, stack_file
from topology.explain import explain
from topology.plan import plan
from topology.problems import StackError

RUN = CliRunner()


@pytest.fixture(autouse=True)
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUPERSET_ASYNC_STACKS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("sign_on", SIGN_ONS)
def test_every_choice_makes_a_stack_that_plans(stacks: Path, topology: str, platform: str, sign_on: str) -> None:
    issuer = {"oidc": "https://login.example.com", "ldap": "ldaps://ldap.example.com", "passwords": ""}[sign_on]
    arguments = ["--topology", topology, "--platform", platform, "--database", "secret", "--sign-on", sign_on]
    arguments += ["--database-network", "10.20.0.0/16", "--sign-on-network", "10.30.0.0/24"]
    done = RUN.invoke(app, ["init", "new", *arguments, *(["--issuer", issuer] if issuer else [])])
    assert done.exit_code == 0, done.output
    text = (stacks / "Pulumi.new.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert (stacks / "schema.json").exists()
    planned = plan("new", stack_file.read("new"))
    assert (planned.name, planned.platform) == (topology, platform)
    assert planned.databases[0].uri_env == "DATABASE_URI_WAREHOUSE"
    assert (planned.superset.sign_on is not None) == (sign_on != "passwords")
    reached = {peer.key: (peer.cidrs, peer.ports) for peer in planned.egress}
    if platform != "local":
        assert reached["databases.warehouse"] == (("10.20.0.0/16",), (5432,))
        assert ("superset.sign_on" in reached) == (sign_on != "passwords")
    assert ("make up STACK=new" in done.output) == (platform == "local")


def test_it_asks_for_what_no_option_says(stacks: Path) -> None:
    done = RUN.invoke(app, ["init", "asked"], input="enterprise\nlocal\nsample\npasswords\n")
    assert done.exit_code == 0, done.output
    assert all(text in done.output for text in (*TOPOLOGIES.values(), *DATABASES.values(), *SIGN_ONS.values()))
    assert plan("asked", stack_file.read("asked")).databases[0].sample


def test_a_file_that_exists_stays(stacks: Path) -> None:
    (stacks / "Pulumi.mine.yaml").write_text("mine")
    done = RUN.invoke(app, ["init", "mine"])
    assert isinstance(done.exception, StackError)
    assert "has a file already" in str(done.exception)
    assert (stacks / "Pulumi.mine.yaml").read_text() == "mine"


def test_a_wrong_answer_writes_nothing(stacks: Path) -> None:
    done = RUN.invoke(app, ["init", "new", "--topology", "huge"])
    assert "must be one of minimal" in str(done.exception)
    assert not list(stacks.iterdir())


def test_the_choices_are_those_that_there_are() -> None:
    assert set(TOPOLOGIES) == set(presets.NAMES)


@pytest.mark.parametrize(
    ("key", "value", "origin"),
    [
        ("web.min_replicas", 9, "stack file"),
        ("superset-async:web.max_replicas", 6, "preset"),
        ("databases.sales.allow_dml", None, "nothing: it has a default of its own"),
        ("superset.settings.APP_NAME", "Acme", "stack file"),
        ("web", None, "stack file"),
    ],
)
def test_a_key_is_explained(key: str, value: object, origin: str) -> None:
    config = {"topology": "enterprise", "web": {"min_replicas": 9}, "superset": {"settings": {"APP_NAME": "Acme"}}}
    found = explain("here", key, config)
    assert found.origin == origin
    assert found.is_
    assert changes(found.path)
    if value is not None:
        assert found.value == value


def test_an_unknown_key_is_refused_with_the_nearest(stacks: Path) -> None:
    (stacks / "Pulumi.here.yaml").write_text("config:\n  superset-async:topology: minimal\n")
    done = RUN.invoke(app, ["explain", "web.min_replica", "--stack", "here"])
    assert "Did you mean 'min_replicas'?" in str(done.exception)
    shown = RUN.invoke(app, ["explain", "workers.concurrency", "--stack", "here"])
    assert shown.exit_code == 0
    assert "from        preset" in shown.output


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("superset.sign_on", "restarts web, worker, beat, init"),
        ("superset.settings", "restarts web, worker, beat, init"),
        ("tenants.<name>.groups", "read by running"),
        ("redis.broker.maxmemory", "no process of Superset"),
        ("namespace", "another stack"),
    ],
)
def test_what_a_change_does_is_what_the_page_says(path: str, says: str) -> None:
    assert says in changes(path)
