"""The schema that editors check stack files with: it is current, takes what a stack may say, and refuses what it may not."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from tests.components.stacks import OTHERS, config_of
from topology import presets, stack_file
from topology.plan import plan
from topology.schema import FILE, LINE, document, schema

VALIDATOR = jsonschema.Draft7Validator(schema())
FILES = sorted(stack_file.folder().glob("Pulumi.*.yaml"))


def wrong(config: dict[str, Any]) -> list[str]:
    """What an editor would underline."""
    whole = {"config": {f"superset-async:{key}": value for key, value in config.items()}}
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in VALIDATOR.iter_errors(whole)]


def test_the_committed_schema_is_current() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    assert (stack_file.folder() / FILE).read_text(encoding="utf-8") == document(), "run `make schema`"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_stack_file_names_it_and_is_right_by_it(file: Any) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith(LINE + "\n")
    assert not list(VALIDATOR.iter_errors(yaml.safe_load(text)))


@pytest.mark.parametrize("name", presets.NAMES)
def test_the_example_of_each_topology_is_right_and_has_comments(name: str) -> None:
    text = (stack_file.folder().parent / "docs" / "examples" / "stacks" / f"Pulumi.{name}.yaml").read_text(encoding="utf-8")
    whole = yaml.safe_load(text)
    assert not list(VALIDATOR.iter_errors(whole))
    config = {key.partition(":")[2]: value for key, value in whole["config"].items()}
    assert config["topology"] == name
    plan(name, config)
    comments = [line for line in text.splitlines() if line.lstrip().startswith("# ")]
    assert len(comments) >= len(config) / 2


@pytest.mark.parametrize("stack", OTHERS)
def test_whatever_a_stack_may_say_is_right_by_it(stack: str) -> None:
    assert wrong(config_of(stack)) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "'superset-async:topology' is a required property"),
        ({"topology": "huge"}, "'huge' is not one of"),
        ({"topology": "minimal", "wbe": {}}, "'superset-async:wbe' does not match any of the regexes"),
        ({"topology": "minimal", "web": {"min_replica": 2}}, "'min_replica' was unexpected"),
        ({"topology": "minimal", "web": {"min_replicas": "2"}}, "'2' is not of type 'integer'"),
        ({"topology": "minimal", "redis": {"broker": {"maxmemory": "1 GB"}}}, "'1 GB' does not match"),
        ({"topology": "minimal", "superset": {"feature_flags": {"DASHBORD_RBAC": True}}}, "'DASHBORD_RBAC' was unexpected"),
        ({"topology": "minimal", "superset": {"settings": {"CELERY_CONFIG": {}}}}, "'CELERY_CONFIG' was unexpected"),
        ({"topology": "minimal", "superset": {"settings": {"ROW_LIMIT": "9"}}}, "is not of type"),
        ({"topology": "minimal", "superset": {"sign_on": {"oidc": {"issuer": "https://x.y"}}}}, "is not valid|required"),
        ({"topology": "minimal", "tenants": {"A B": {}}}, "do(es)? not match any of the regexes"),
    ],
)
def test_a_mistake_shows_while_it_is_typed(config: dict[str, Any], says: str) -> None:
    found = wrong(config)
    assert re.search(says, "\n".join(found)), found


def test_every_key_has_its_description() -> None:
    config = json.loads(document())["properties"]["config"]["properties"]
    assert all(each.get("description") or each.get("enum") or each.get("properties") for each in config.values())
