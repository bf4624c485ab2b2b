"""Commands of the runbooks can be copied and pasted: what they name is on the cluster, and their programs take them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from redis import Redis

from infra import recording
from ops.cli import app
from tests.runtime.observability import test_exporter as with_a_server
from topology import stack_file

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted((PROJECT / "docs/runbooks").glob("*.md"))
ALERTS = PROJECT / "docs/runbooks/alerts.md"
#: A stack with everything that the page of alerts names.
STACK = "enterprise"
NAMESPACE = "superset"
server = with_a_server.server
KUBECTL = shutil.which("kubectl")
#: What a page has its reader put in.
PLACEHOLDER = re.compile(r"<[a-z][a-z ]*>")


def blocks(page: Path, kind: str) -> list[str]:
    """The lines of a page's blocks: `sh` are for a cluster, `sh here` for this machine."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for says, block in found if says == kind for line in block.splitlines()]


def statements(page: Path) -> list[str]:
    """The statements in a page's text that are whole."""
    spans = re.findall(r"`(SELECT [^`]+)`", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in spans]


def commands(page: Path) -> Iterator[str]:
    """The command lines of a page's blocks for a cluster, and in its text."""
    text = page.read_text(encoding="utf-8")
    yield from blocks(page, "sh")
    for span in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        line = " ".join(span.split())
        # A command that is only named has no argument, one that is shortened has an ellipsis.
        if re.match(r"(kubectl \S+|superset-async) \S", line) and "…" not in line:
            yield line


def of(program: str, *pages: Path) -> list[str]:
    found = [line for page in pages for line in commands(page) if line.split()[0] == program]
    assert found
    return sorted(set(found))


@cache
def manifests() -> list[dict[str, Any]]:
    return recording.record(STACK, stack_file.read(STACK)).manifests()


def labels(kind: str) -> list[dict[str, str]]:
    """The labels of every object of a kind; of pods those of every template."""
    if kind in ("pod", "pods"):
        return [it["spec"]["template"]["metadata"]["labels"] for it in manifests() if "template" in it.get("spec", {})]
    return [it["metadata"]["labels"] for it in manifests() if it["kind"].lower() == kind.removesuffix("s")]


def named(kind: str) -> set[str]:
    found = {it["metadata"]["name"] for it in manifests() if it["kind"].lower() == kind}
    if kind == "pod":
        return {f"{name}-0" for name in named("statefulset")}
    return found


@pytest.mark.parametrize("command", of("kubectl", ALERTS))
def test_what_a_command_names_is_on_the_cluster(command: str) -> None:
    words = shlex.split(command)
    if "--" in words:
        words = words[: words.index("--")]
    options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    assert words[1:3] == ["--namespace", NAMESPACE], "the namespace is said first"
    assert {it["metadata"].get("namespace", NAMESPACE) for it in manifests()} == {NAMESPACE}
    for kind, name in (word.split("/") for word in words if re.fullmatch(r"[a-z]+/[a-z0-9-]+", word)):
        assert name in named(kind), (kind, name, sorted(named(kind)))
    pods = [word for word in words if re.fullmatch(r"[a-z-]+-\d", word)]
    assert set(pods) <= named("pod")
    if "--selector" in options:
        key, value = options["--selector"].split("=")
        # After the verb.
        assert value in {found.get(key) for found in labels(words[4])}, (key, value)


def test_the_pod_of_a_redis_knows_the_operators_password() -> None:
    for name in ("redis-broker", "redis-cache"):
        pod = next(it for it in manifests() if it["kind"] == "StatefulSet" and it["metadata"]["name"] == name)
        containers = {it["name"]: it for it in pod["spec"]["template"]["spec"]["containers"]}
        assert any(variable["name"] == "REDISCLI_AUTH" for it in containers.values() for variable in it.get("env", ()))


@pytest.mark.skipif(not KUBECTL, reason="no kubectl on PATH")
def test_kubectl_takes_every_command() -> None:
    for command in of("kubectl", *PAGES):
        words = shlex.split(PLACEHOLDER.sub("name", command.partition(" | ")[0]))
        done = subprocess.run(
            # Where nothing listens: what it would not take it says before it connects.
            [str(KUBECTL), "--server=http://127.0.0.1:1", "--request-timeout=5s", *words[1:]],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "refused" in done.stderr, (command, done.stderr)


def test_a_mistake_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `kubectl --namespace superset logs deployment/none --tail=5`, or `kubectl get pods`:\n\n```sh\nmake x\n```\n"
    )
    assert list(commands(page)) == [
        "make x",
        "kubectl --namespace superset logs deployment/none --tail=5",
        "kubectl get pods",
    ]
    with pytest.raises(AssertionError, match="none"):
        test_what_a_command_names_is_on_the_cluster("kubectl --namespace superset logs deployment/none --tail=5")
    with pytest.raises(AssertionError, match="component"):
        test_what_a_command_names_is_on_the_cluster("kubectl --namespace superset get pods --selector=component=beat")


@pytest.mark.parametrize("command", of("superset-async", *PAGES))
def test_the_command_line_takes_it(command: str) -> None:
    command = command.partition("  #")[0]
    words = shlex.split(PLACEHOLDER.sub("name", command))[1:]
    group: Any = typer.main.get_command(app)
    with group.make_context("superset-async", words[:1], resilient_parsing=True) as context:
        name, found, _ = group.resolve_command(context, words)
        # Parses every option, and does nothing.
        found.make_context(name, words[1:], parent=context)


def test_what_redis_is_asked_it_answers_to_the_operator(server: with_a_server.Server) -> None:
    """What a page has `redis-cli --user operator` do, but for its own scan of keys."""
    asked = [command.partition("redis-cli --user operator ")[2] for command in of("kubectl", ALERTS)]
    questions = [line for line in asked if line and not line.startswith("--")]
    assert questions
    with Redis(port=server.port, username="operator", password="operator-password", decode_responses=True) as client:
        for line in questions:
            assert client.execute_command(*line.split()), line
