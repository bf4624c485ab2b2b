"""The page of settings and processes is what the Pulumi program really makes: which pods have another template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import effects, program, recording
from topology import readers
from topology.plan import plan
from topology.presets import merge
from topology.problems import StackError
from topology.readers import Process

pytestmark = pytest.mark.thorough
PAGE = Path(__file__).resolve().parents[2] / "docs/settings-and-processes.md"
NAMES: dict[str, Process] = {"web": "web", "beat": "beat", "exporter": "exporter"}


def templates(config: dict[str, Any]) -> dict[tuple[Process, str], Any]:
    """The pod's template of each process that the program makes."""
    recorded = recording.record("any", config, secret_keys=frozenset(program.SECRET_KEYS))
    found: dict[tuple[Process, str], Any] = {}
    for each in recorded.manifests():
        name = each["metadata"]["name"]
        if each["kind"] == "Job" and name.startswith("superset-init"):
            found["init", ""] = [name, each["spec"]["template"]]
        elif each["kind"] == "Deployment":
            found["worker" if name.startswith("worker-") else NAMES[name], name] = each["spec"]["template"]
    return found


def restarted(before: dict[str, Any], after: dict[str, Any]) -> set[Process]:
    old, new = templates(before), templates(after)
    return {kind for (kind, name), template in old.items() if (kind, name) in new and new[kind, name] != template}


def cases() -> Iterator[tuple[str, dict[str, Any], dict[str, Any], set[Process]]]:
    """Each setting with the stack in which it is changed, its change, and who restarts, as the page says."""
    for path, field in effects.settings_of_all():
        change = None if effects.elsewhere(path) else effects.change_of(path, field)
        if change is not None:
            base = effects.beside(path)
            effect = effects.effect_of(plan("any", base), plan("any", merge(base, change)))
            yield path, base, change, {kind for kind, reach in effect.items() if reach == "restarts"}


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == effects.document(), "run `make docs`"


def test_no_pod_restarts_for_a_setting_of_which_the_page_does_not_say_so() -> None:
    """All such changes at once, as far as one stack can have them: no process's template is another."""
    for process in readers.PROCESSES:
        base, changed, tried = effects.BASE, effects.BASE, 0
        for path, beside, change, restarts in cases():
            if process in restarts or beside != base or path.startswith("tenants.<name>.pool"):
                continue
            try:
                plan("any", merged := merge(changed, change))
            except StackError:
                continue
            if process not in {
                kind
                for kind, reach in effects.effect_of(plan("any", base), plan("any", merged)).items()
                if reach == "restarts"
            }:
                changed, tried = merged, tried + 1
        assert tried > 30, process
        assert process not in restarted(base, changed), process


def test_what_restarts_for_its_pods_template_alone_has_another_one() -> None:
    tried = 0
    for path, base, change, restarts in cases():
        before, after = plan("any", base), plan("any", merge(base, change))
        by_template = {kind for kind in restarts if readers.at_start(before, kind) == readers.at_start(after, kind)}
        if by_template and not path.startswith(("workers.resources", "web.resources", "redis.")):
            tried += 1
            assert by_template <= restarted(base, merge(base, change)), path
    assert tried > 20
