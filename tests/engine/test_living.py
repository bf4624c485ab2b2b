"""The next up of a stack that lives, in the real engine: its own state says what the last one made. No cluster is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from pulumi import automation

from infra import recording
from ops import destroy
from ops.stack_cluster import Cluster
from tests.components.stacks import config_of
from tests.engine.conftest import MakeStack, configure, run
from tests.topology.test_changes import CASES
from topology import changes

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
NAME = "minimal"
PROVIDER_ID = "11111111-1111-4111-8111-111111111111"


PREFIX = f"urn:pulumi:{NAME}::superset-async::"
ROOT = f"{PREFIX}pulumi:pulumi:Stack::superset-async-{NAME}"


def give(stack: automation.Stack, resources: list[dict[str, Any]]) -> None:
    """Give `stack` the state that an up leaves, with these resources: a test of the engine alone needs no provider then."""
    deployment: dict[str, Any] = dict(stack.export_stack().deployment or {})
    version = "v3.0.0"
    magic = hashlib.sha256(version.encode()).hexdigest()
    deployment["manifest"] = {"time": "2026-01-01T00:00:00Z", "version": version, "magic": magic}
    root = {"urn": ROOT, "type": "pulumi:pulumi:Stack", "custom": False, "outputs": {"namespace": "superset"}}
    deployment["resources"] = [root, *resources]
    stack.import_stack(automation.Deployment(version=3, deployment=deployment))


def provider(package: str, name: str) -> dict[str, Any]:
    token = f"pulumi:providers:{package}"
    return made(token, name, id=PROVIDER_ID)


def made(token: str, name: str, within: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A resource in the engine's state, within a component or the stack; a component where it has no id."""
    types = f"{within['type']}${token}" if within else token
    return {
        "urn": f"{PREFIX}{types}::{name}",
        "type": token,
        "custom": "id" in more,
        "parent": within["urn"] if within else ROOT,
        **({"inputs": {}, "outputs": {}} if "id" in more else {}),
        **more,
    }


def after_an_up(stack: automation.Stack, changed: Mapping[str, Any] | None = None) -> None:
    """Give `stack` what the program asks the engine for: the ConfigMap of the topology, of its file with what is `changed`."""
    recorded = recording.record(NAME, config_of(NAME) | dict(changed or {}))
    (config,) = (
        each for each in recorded.resources if each.type.endswith(":ConfigMap") and each.name == "superset-topology"
    )
    cluster, holder = (
        provider("kubernetes", "cluster"),
        made("superset-async:configuration:Configuration", "superset-topology"),
    )
    by = f"{cluster['urn']}::{PROVIDER_ID}"
    known = {"id": "superset/superset-topology", "provider": by, "inputs": config.inputs, "outputs": config.inputs}
    give(stack, [cluster, holder, made(config.type, config.name, holder, **known)])


def told(stack: automation.Stack) -> str:
    """What a preview that cannot be made says."""
    with pytest.raises(automation.CommandError) as caught:
        stack.preview()
    return str(caught.value)


def test_a_preview_refuses_with_its_steps_what_the_last_up_stands_against(make_stack: MakeStack) -> None:
    stack = make_stack(NAME, None)
    after_an_up(stack)
    stack.set_config("superset-async:postgres.user", automation.ConfigValue("reports"), path=True)
    said = told(stack)
    assert "postgres.user = superset → reports" in said
    assert "ALTER ROLE superset RENAME TO reports" in said
    assert f"{changes.ACCEPT_ENV}=postgres.user pulumi up (once)" in said
    assert "Traceback" not in said


WAYS = {f"{name}, {way}": way for name in CASES for way in ("there", "back")}


@pytest.mark.parametrize("way", WAYS)
def test_a_preview_says_of_each_change_what_it_is(way: str, make_stack: MakeStack) -> None:
    """The rows of docs/living.md: refused with the keys and the steps that the table of changes has, or planned."""
    name, _, direction = way.rpartition(", ")
    first, second, there, back = CASES[name]
    before, after, refused = (first, second, there) if direction == "there" else (second, first, back)
    stack = make_stack(NAME, None)
    after_an_up(stack, before)
    secrets = {"postgres_password": None} if "existing" in way else {}
    configure(stack, after)
    if secrets:
        for key in secrets:
            stack.set_config(f"superset-async:{key}", automation.ConfigValue("given-postgres-password", secret=True))
    if not refused:
        stack.preview()
        return
    said = told(stack)
    assert "Traceback" not in said
    for key in refused:
        assert f"{key} = " in said
        assert "cannot be made smaller" in said or f"{changes.ACCEPT_ENV}={key} pulumi up" in said


def test_what_is_accepted_goes_on_and_a_word_too_many_does_not(make_stack: MakeStack) -> None:
    stack = make_stack(NAME, None)
    after_an_up(stack)
    stack.workspace.env_vars = {**(stack.workspace.env_vars or {}), changes.ACCEPT_ENV: "postgres.user,namespace"}
    stack.set_config("superset-async:postgres.user", automation.ConfigValue("reports"), path=True)
    said = told(stack)
    assert "namespace: accepts a change that this stack does not make" in said
    assert "superset → reports" not in said


def test_a_destroy_keeps_what_is_protected_and_every_password(make_stack: MakeStack) -> None:
    """The command that `make destroy` runs, on a state with what it must keep and a component that goes."""
    stack = make_stack(NAME, None)
    recorded = {each.name: each for each in recording.record(NAME, config_of(NAME)).resources if each.custom}
    cluster, chance = provider("kubernetes", "cluster"), provider("random", "default")
    home, secrets = (
        made("superset-async:namespace:Namespace", "namespace"),
        made("superset-async:secrets:Secrets", "superset"),
    )
    kept = [
        made(
            recorded[name].type,
            name,
            within,
            id=name,
            provider=f"{by['urn']}::{PROVIDER_ID}",
            protect=recorded[name].protect,
        )
        for name, within, by in (
            ("namespace", home, cluster),
            ("superset-secret-key", secrets, chance),
            ("superset-jwt", secrets, chance),
        )
    ]
    assert [each["protect"] for each in kept] == [True, True, False]
    give(stack, [cluster, chance, home, secrets, *kept, made("superset-async:web:WebTier", "web")])
    (command,) = destroy.commands(NAME, kept, Cluster(), with_data=False)
    done = run(stack, *command[1:])
    assert done.returncode == 0, done.stderr
    left = {each["urn"] for each in (stack.export_stack().deployment or {})["resources"]}
    assert left == {ROOT, *(each["urn"] for each in (cluster, chance, home, secrets, *kept))}
