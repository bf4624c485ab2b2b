"""docs/faults.md says of each topology what is true of it."""

from __future__ import annotations

import re
from pathlib import Path

from topology import presets, stack_file
from topology.plan import plan

PAGE = (Path(__file__).resolve().parents[1] / "docs/faults.md").read_text()


def test_which_stacks_acknowledge_late() -> None:
    said = re.search(r"late in (.+?); early in (.+?)\. \"As shipped", PAGE.replace("\n", " "))
    assert said
    late, early = (set(re.findall(r"`([^`]+)`", part)) for part in said.groups())
    assert late == {name for name in presets.NAMES if plan("any", {"topology": name}).celery.acks_late}
    assert early == {*presets.NAMES} - late | {"local"}
    assert not plan("local", stack_file.read("local")).celery.acks_late


def test_the_time_limit_and_other_settings_that_the_page_names_are_those_of_the_stacks() -> None:
    limit = re.search(r"`resilience.final_state` \((\d+) s\)", PAGE)
    assert limit
    for name in presets.NAMES:
        assert plan("any", {"topology": name}).resilience.final_state_seconds == int(limit[1])
    known = presets.settings_of("enterprise")
    for section, key in re.findall(r"`([a-z_]+)\.([a-z_]+)`", PAGE):
        if section in known:
            assert key in known[section], f"{section}.{key}"
