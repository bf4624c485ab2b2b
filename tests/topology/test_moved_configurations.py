"""Five configurations as teams have them: what of each is refused, in words, and the stack file and module that it becomes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from topology import own_module, stack_file
from topology.own_module import OwnModule
from topology.plan import plan
from topology.superset_ownership import assigned

MOVED = stack_file.folder().parent / "docs" / "examples" / "moved"
NAMES = sorted(folder.name for folder in MOVED.iterdir() if folder.is_dir())
SIGN_ON_KINDS = {"oauth", "ldap"}


def said(name: str) -> dict[str, Any]:
    """The keys of the stack file that it becomes."""
    whole = yaml.safe_load((MOVED / name / "stack.yaml").read_text())
    return {key.partition(":")[2]: value for key, value in whole["config"].items()}


def refused(name: str) -> list[str]:
    """What is said of the file that a team has, named as it is as superset.config_module."""
    module = OwnModule("superset_config.py", {"superset_config.py": (MOVED / name / "superset_config.py").read_text()})
    decided = {"signs_on": "sign_on" in said(name)["superset"], "embeds": "embedding" in said(name)["superset"]}
    return [str(each) for each in own_module.check("superset_config.py", module, **decided, settings={})]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused_of_each_is_in_the_page_word_for_word(name: str) -> None:
    page = (MOVED / "README.md").read_text()
    found = re.search(rf"^## [^\n]*\({name}/[^#]*?^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found, f"no block of refusals under {name}"
    assert found[1].splitlines() == refused(name)
    assert refused(name), "nothing to show"


@pytest.mark.parametrize("name", NAMES)
def test_what_each_becomes_is_right(name: str) -> None:
    stack = said(name)
    topology = plan(name, stack)
    named = topology.superset.config_module
    assert (topology.superset.sign_on is not None) == (name in SIGN_ON_KINDS)
    if named:
        module = OwnModule(named, {named: (MOVED / name / named).read_text()})
        own = topology.superset
        decided = {"signs_on": own.sign_on is not None, "embeds": own.embedding is not None}
        checked = own_module.check(named, module, **decided, settings=own.settings)
        assert list(checked) == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_forgotten(name: str) -> None:
    """Each setting of a team's file is data of the stack file, in the module, the sign-on's, or refused with its way out."""
    stack = said(name)["superset"]
    before = {setting for setting, _ in assigned((MOVED / name / "superset_config.py").read_text())}
    module = stack.get("config_module")
    kept = {setting for setting, _ in assigned((MOVED / name / module).read_text())} if module else set[str]()
    kept |= set(stack.get("settings", {})) | ({"FEATURE_FLAGS"} if "feature_flags" in stack else set())
    told = "\n".join(refused(name))
    # Claims of an OpenID provider need no code.
    kept |= {"CUSTOM_SECURITY_MANAGER"} if name == "oauth" else set()
    # Of browsers' policy it says the sites alone, which have a key.
    kept |= {"TALISMAN_CONFIG"} if name == "embedding" else set()
    assert {each for each in before - kept if not re.search(rf"\b{each}\b", told)} == set()
