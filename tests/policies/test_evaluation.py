"""Exceptions, options and levels; the command and its exit code; the engine's adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies import check
from policies.evaluation import EXCEPTIONS, Exemption, PolicyConfigError, evaluate, read_config
from policies.graph import UNKNOWN
from policies.pack import plain, policies
from policies.rules import ALL
from tests.components.stacks import OTHERS, config_of
from tests.policies import mutations
from topology import stack_file as files
from topology.problems import StackError

ROOT = Path(__file__).resolve().parents[2]
TODAY = date(2026, 11, 23)
PUBLIC = next(each for each in mutations.all_mutations() if each.what == "a LoadBalancer")


@pytest.mark.parametrize("stack", OTHERS)
def test_whatever_a_stack_may_say_breaks_no_rule(stack: str) -> None:
    """Names of Secrets are no secrets; servers that exist elsewhere, and those that speak TLS alone, are understood."""
    assert evaluate(check.graph_of(stack, config_of(stack))).findings == ()


def exemption(rule: str, resource: str = "Service/web", expires: date = TODAY) -> Exemption:
    return Exemption(rule, resource, "the old portal, until it moves", "team-bi", expires)


def found(*exemptions: Exemption) -> list[tuple[str, str, bool]]:
    report = evaluate(mutations.mutated("minimal", PUBLIC), exemptions=exemptions, today=TODAY)
    return [(each.rule, each.severity, each.exemption is not None) for each in report.findings]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), [("network-public-service", "mandatory", False)]),
        ((exemption("network-public-service"),), [("network-public-service", "mandatory", True)]),
        (
            (exemption("network-public-service", expires=date(2026, 11, 22)),),
            [("network-public-service", "mandatory", False), (EXCEPTIONS, "mandatory", False)],
        ),
        (
            (exemption("network-public-service", "Service/gone"),),
            [("network-public-service", "mandatory", False), (EXCEPTIONS, "advisory", False)],
        ),
        (
            (exemption("network-public-services"),),
            [("network-public-service", "mandatory", False), (EXCEPTIONS, "mandatory", False)],
        ),
    ],
    ids=["none", "valid on its last day", "expired", "another resource", "unknown rule"],
)
def test_exceptions(given: tuple[Exemption, ...], expected: list[tuple[str, str, bool]]) -> None:
    """An exception excuses one resource until its day; an expired or unknown one is a violation itself."""
    assert found(*given) == expected


def test_no_exception_from_the_loss_of_data() -> None:
    """A rule about data is never excused, and asking for it is a violation."""
    evicts = next(each for each in mutations.all_mutations() if each.rule == "redis-broker-evicts")
    graph = mutations.mutated("minimal", evicts)
    report = evaluate(graph, exemptions=[exemption("redis-broker-evicts", "StatefulSet/redis")], today=TODAY)
    assert [each.rule for each in report.mandatory] == ["redis-broker-evicts", EXCEPTIONS]


def stack_file(folder: Path, name: str, config: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {f"{files.PROJECT_NAME}:{key}": value for key, value in config.items()}
    (folder / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": keys}), encoding="utf-8")
    monkeypatch.setenv(files.STACKS_ENV, str(folder))


def test_exceptions_of_a_stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read from the stack file, whether or not YAML takes the day for a date; a wrong one is refused."""
    given = {
        "rule": "secrets-length",
        "resource": "RandomPassword/superset-admin",
        "reason": "an old system",
        "owner": "ops",
    }
    config = files.read("minimal")
    for number, day in enumerate((date(2999, 1, 31), "2999-01-31", "2999-01-31 00:00:00 +0000 UTC")):
        stack_file(tmp_path, f"s{number}", {**config, "policy_exceptions": [{**given, "expires": day}]}, monkeypatch)
        options = tmp_path / "policy.json"
        options.write_text(json.dumps({"secrets-length": {"least": 33}}), encoding="utf-8")
        report = check.check(f"s{number}", config_file=options, today=TODAY)
        assert [each.resource for each in report.excused] == ["RandomPassword/superset-admin"]
        assert {each.rule for each in report.mandatory} == {"secrets-length"}
    for wrong in ({"expires": "soon"}, {"expires": "2999-01-31", "reason": "?"}, {}):
        stack_file(tmp_path, "wrong", {**config, "policy_exceptions": [{**given, **wrong}]}, monkeypatch)
        with pytest.raises(StackError, match="policy_exceptions"):
            check.check("wrong")


def test_configuration() -> None:
    """Options change a rule, a level reports instead of stopping, and nothing softens a rule about data."""
    graph = mutations.mutated("minimal", PUBLIC)
    assert evaluate(graph, config=read_config({"network-public-service": {"public": ["web"]}})).findings == ()
    assert evaluate(graph, config=read_config({"network-public-service": "disabled"})).findings == ()
    advisory = evaluate(graph, config=read_config({"network-public-service": {"enforcementLevel": "advisory"}}))
    assert (len(advisory.mandatory), len(advisory.advisory)) == (0, 1)
    config = read_config({"all": "advisory"})
    assert all(config.level(rule) == rule.severity for rule in ALL if rule.loses_data)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"redis-broker-evicts": "advisory"}, "protects data"),
        ({"redis-broker-evict": "advisory"}, "redis-broker-evicts"),
        ({"redis-maxmemory": {"share": 60}}, "Known: percent"),
        ({"redis-broker-evicts": {"percent": 60}}, "Known: none"),
        ({"pods-token": "off"}, "mandatory, advisory, disabled"),
    ],
)
def test_wrong_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    """A mistake in the configuration is named with what there is instead."""
    with pytest.raises(PolicyConfigError, match=message):
        read_config(config)


def run(stack: str, *options: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    import os

    environment = {**os.environ, "COLUMNS": "400", **({files.STACKS_ENV: str(folder)} if folder else {})}
    command = [sys.executable, "-m", "policies.check", stack, *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_command_prints_a_table_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule, resource, problem and fix of what must not be deployed, and exit code 1; 0 where nothing stops."""
    tls = {server: {"tls": {"kind": "generated"}} for server in ("redis", "postgres")}
    stack_file(tmp_path, "risky", {**files.read("minimal"), **tls, "environment": "prod"}, monkeypatch)
    result = run("risky", folder=tmp_path)
    assert result.returncode == 1, result.stderr
    for text in ("platform-prod-minimal", "ConfigMap/superset-topology", "topology minimal in environment prod", "1 stop"):
        assert text in result.stdout
    # Off a terminal a finding is one line, and nothing of it is cut.
    assert any("platform-prod-minimal" in line and "Set topology: enterprise" in line for line in result.stdout.splitlines())
    wrong = run("nowhere")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "Pulumi.nowhere.yaml" in wrong.stderr


def test_policies_of_the_engine() -> None:
    """Every rule is a policy with its level, reason, fix and link, and options only where a rule has some."""
    made = {policy.name: policy for policy in policies()}
    assert set(made) == {rule.id for rule in ALL} | {EXCEPTIONS}
    for rule in ALL:
        policy = made[rule.id]
        assert policy.enforcement_level is not None
        assert policy.enforcement_level.value == rule.severity
        assert (policy.description, policy.remediation_steps, policy.url) == (rule.reason, rule.fix, rule.runbook)
        schema = policy.config_schema
        assert set(schema.properties if schema else ()) == set(rule.options)


def test_proxies_of_the_sdk_are_taken_off() -> None:
    """Values behind the SDK's proxies become plain data, unknown ones included, which those raise on."""
    from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

    from policies.graph import normalise

    given = {"a": [{"b": UNKNOWN_STRING_VALUE, "c": 2.0}], "d": {"e": "text"}}
    result = normalise(plain(unknown_checking_proxy(given)))
    assert result["a"][0]["b"] is UNKNOWN
    assert result["a"][0]["c"] == 2
    assert result["d"] == {"e": "text"}
