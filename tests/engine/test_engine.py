"""Every stack through the real engine: what a preview says, what is made, what a change touches, and that nothing is left."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation

from infra import recording
from tests.components.stacks import config_of, recorded
from tests.engine.conftest import MakeStack, configure, remove, run

STACKS = ("minimal", "enterprise", "high-throughput", "multi-tenant")
#: Minutes, where everything has to be made and taken away again.
pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


def changes(act: Callable[..., Any], **options: Any) -> dict[str, str]:
    """What an operation does to each resource that it does not leave as it is: operation by `Kind/name`."""
    found: dict[str, str] = {}

    def note(event: automation.EngineEvent) -> None:
        metadata = event.resource_pre_event.metadata if event.resource_pre_event else None
        if metadata and metadata.op not in ("same", "read", "refresh") and "pulumi:providers:" not in metadata.urn:
            kind, _, name = metadata.urn.rpartition("::")
            found[f"{kind.rpartition(':')[2]}/{name}"] = str(getattr(metadata.op, "value", metadata.op))

    act(on_event=note, **options)
    return found


def registered(stack: str) -> set[str]:
    """Every resource that the recording of the same program has, and the stack itself; providers left out."""
    made = [each for each in recorded(stack).resources if not each.type.startswith("pulumi:providers:")]
    return {f"{each.type.rpartition(':')[2]}/{each.name}" for each in made} | {f"Stack/superset-async-{stack}"}


@pytest.mark.parametrize("stack", STACKS)
def test_a_preview_needs_no_cluster_and_plans_what_is_rendered(stack: str, make_stack: MakeStack) -> None:
    planned = changes(make_stack(stack, None).preview)
    assert set(planned.values()) == {"create"}
    assert set(planned) == registered(stack)


def test_mistakes_are_told_without_a_traceback(make_stack: MakeStack) -> None:
    stack = make_stack("minimal", None)
    for key, value in (("celery.soft_time_limit", "700"), ("row_limt", "5")):
        stack.set_config(f"superset-async:{key}", automation.ConfigValue(value), path=True)
    with pytest.raises(automation.CommandError) as caught:
        stack.preview()
    told = str(caught.value)
    assert "3 problems" in told
    assert "row_limt = 5: is no key of a stack file. Did you mean 'row_limit'" in told
    assert "Traceback" not in told


def test_secrets_are_taken_only_encrypted(make_stack: MakeStack) -> None:
    stack = make_stack("minimal", None)
    configure(stack, {"databases": {"lake": {"allow_dml": False, "cidrs": ["10.20.0.0/16"], "ports": [5432]}}})
    with pytest.raises(automation.CommandError, match=r"database_uris\.lake = missing"):
        stack.preview()
    uri = "postgresql://reader:given-uri-password@lake.example.com/dwh"
    stack.set_config("superset-async:database_uris.lake", automation.ConfigValue(uri), path=True)
    with pytest.raises(automation.CommandError, match="stands unencrypted") as caught:
        stack.preview()
    assert "given-uri-password" not in str(caught.value)
    stack.set_config("superset-async:database_uris.lake", automation.ConfigValue(uri, secret=True), path=True)
    result = stack.preview()
    assert "given-uri-password" not in result.stdout
    files = Path(stack.workspace.work_dir, "stacks").glob("*.yaml")
    assert not [file.name for file in files if "given-uri-password" in file.read_text()]


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_comes_stays_changes_and_goes(name: str, make_stack: MakeStack, kubeconfig: Path) -> None:
    stack = make_stack(name, kubeconfig)
    namespace = f"engine-{name}"
    stack.set_config("superset-async:namespace", automation.ConfigValue(namespace))
    try:
        assert set(changes(stack.up)) == registered(name)
        outputs = stack.outputs()
        assert set(outputs) == set(recorded(name).outputs)
        assert not [key for key, output in outputs.items() if output.secret]
        assert outputs["namespace"].value == namespace
        assert_same_objects(stack, name, namespace)

        assert changes(stack.up, expect_no_changes=True) == {}

        stack.set_config("superset-async:web.connections.recycle", automation.ConfigValue("1700"), path=True)
        assert changes(stack.up) == {"ConfigMap/superset-topology": "update", "Deployment/web": "update"}

        stack.set_config("superset-async:admin_username", automation.ConfigValue("root"))
        changed = changes(stack.up)
        # A Job cannot be changed: it is made anew, under a new name.
        assert changed["ConfigMap/superset-topology"] == "update"
        assert set(changed) == {"ConfigMap/superset-topology", "Job/superset-init"}

        stack.refresh(expect_no_changes=True)
    finally:
        remove(stack, namespace, kubeconfig)
    assert not [each for each in state(stack) if each["type"] != "pulumi:pulumi:Stack"]


def test_a_password_is_replaced_and_everything_that_uses_it_rolls(make_stack: MakeStack, kubeconfig: Path) -> None:
    stack = make_stack("minimal", kubeconfig)
    stack.set_config("superset-async:namespace", automation.ConfigValue("engine-rotation"))
    try:
        stack.up()
        (urn,) = [each["urn"] for each in state(stack) if each["urn"].endswith("::superset-redis-broker")]
        changed = changes(stack.up, replace=[urn])
        assert set(changed) == {
            "RandomPassword/superset-redis-broker",
            "Secret/superset-app",
            "Secret/redis-auth",
            "StatefulSet/redis",
            "Job/superset-init",
            "Deployment/web",
            "Deployment/worker-default",
            "Deployment/beat",
            "Deployment/exporter",
        }
        # The automation API shows secrets; what is stored does not.
        passwords = [
            json.loads(each["outputs"]["result"]["plaintext"])
            for each in state(stack)
            if each["type"] == "random:index/randomPassword:RandomPassword"
        ]
        assert len(passwords) >= 5
        stored = run(stack, "stack", "export").stdout
        assert "RandomPassword" in stored
        assert not [password for password in passwords if password in stored]
    finally:
        remove(stack, "engine-rotation", kubeconfig)


def state(stack: automation.Stack) -> list[dict[str, Any]]:
    """The resources in the engine's state, providers left out."""
    found = (stack.export_stack().deployment or {}).get("resources") or []
    return [each for each in found if not each["type"].startswith("pulumi:providers:")]


def assert_same_objects(stack: automation.Stack, name: str, namespace: str) -> None:
    """What the engine made has the inputs that a render of the same stack writes, but for the values of secrets."""
    rendered = recording.record(name, {**config_of(name), "namespace": namespace})
    ours = {f"{each.type}/{each.name}": comparable(each.inputs) for each in rendered.resources if is_object(each.type)}
    theirs = {
        f"{each['type']}/{each['urn'].rpartition('::')[2]}": comparable(each["inputs"])
        for each in state(stack)
        if is_object(each["type"])
    }
    assert ours == theirs
    assert len(ours) > 15


def is_object(token: str) -> bool:
    return token.startswith("kubernetes:") and not token.endswith(":Secret")


def comparable(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs without what the engine adds, and without what depends on the values of secrets."""
    found = {key: value for key, value in copy.deepcopy(inputs).items() if not key.startswith("__")}
    found.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {}).pop("superset-async/secret", None)
    if found["kind"] == "Job":
        found["metadata"].pop("name")
    return found
