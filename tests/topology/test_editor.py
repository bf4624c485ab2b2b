"""The real yaml-language-server with the schema: what an editor shows of a stack file, and on which line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from topology import stack_file
from topology.schema import LINE

SERVER = Path(__file__).resolve().parents[2] / "tools/editor/node_modules/yaml-language-server/bin/yaml-language-server"
EXAMPLES = stack_file.folder().parent / "docs" / "examples" / "stacks"
FILES = sorted([*stack_file.folder().glob("Pulumi.*.yaml"), *EXAMPLES.glob("Pulumi.*.yaml")])

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        shutil.which("node") is None or not SERVER.exists(), reason="yaml-language-server is not installed: make editor"
    ),
]

STACK = """{line}
config:
  superset-async:topology: enterprise
  superset-async:{mistake}
"""
#: The line that is wrong, as it stands under `superset-async:`, and what the editor says of it.
MISTAKES = {
    "web: {min_replica: 2}": "Property min_replica is not allowed",
    "wbe: {min_replicas: 2}": "Property superset-async:wbe is not allowed",
    'web: {min_replicas: "2"}': 'Incorrect type. Expected "integer"',
    "statement_timeout: soon": 'Incorrect type. Expected "integer"',
    'redis: {broker: {maxmemory: "1 GB"}}': "String does not match the pattern",
    "superset: {feature_flags: {DASHBORD_RBAC: true}}": "Property DASHBORD_RBAC is not allowed",
    "superset: {settings: {CELERY_CONFIG: {}}}": "Property CELERY_CONFIG is not allowed",
    "superset: {sign_on: {oidc: {issuer: https://login.example.com}}}": 'Missing property "client_id"',
    "superset: {sign_on: {ldap: {server: [], search: x, bind_user: x}}}": 'Incorrect type. Expected "string"',
}


class Editor:
    """A client of the language server: the part of the protocol that an editor needs for one file at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._sent = process, 0
        assert process.stdin is not None and process.stdout is not None
        self._to, self._from = process.stdin, process.stdout
        self.ask("initialize", processId=None, rootUri=None, capabilities={})
        self._send({"method": "initialized", "params": {}})
        # Without the public list of schemas: the file itself names its own.
        settings = {"yaml": {"validate": True, "completion": True, "hover": True, "schemaStore": {"enable": False}}}
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": settings}})

    def ask(self, method: str, **params: Any) -> Any:
        """The server's answer to a request."""
        self._sent += 1
        self._send({"id": self._sent, "method": method, "params": params})
        while True:
            message = self._next()
            if message.get("id") == self._sent and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def open(self, uri: str, text: str) -> list[tuple[int, str]]:
        """The lines of `text`, from 1, that are wrong, with what is said of each."""
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while True:
            message = self._next()
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri:
                return [(each["range"]["start"]["line"] + 1, each["message"]) for each in message["params"]["diagnostics"]]

    def completions(self, uri: str, line: int, character: int) -> set[str]:
        """What may stand at a place of an open file, both from 0."""
        place = {"line": line, "character": character}
        found = self.ask("textDocument/completion", textDocument={"uri": uri}, position=place)
        return {each["label"] for each in found["items"]}

    def hover(self, uri: str, line: int, character: int) -> str:
        """What is said of what stands at a place."""
        place = {"line": line, "character": character}
        return self.ask("textDocument/hover", textDocument={"uri": uri}, position=place)["contents"]["value"]

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._to.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._to.flush()

    def _next(self) -> dict[str, Any]:
        length = 0
        while (line := self._from.readline()) != b"\r\n":
            assert line, "the language server has ended"
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        message = json.loads(self._from.read(length))
        if "id" in message and "method" in message:
            # What it asks of the editor: no settings beside those that it was told, nothing to register.
            items = message["params"].get("items") if isinstance(message.get("params"), dict) else None
            self._send({"id": message["id"], "result": [None] * len(items) if items else None})
        return message


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    process = subprocess.Popen(["node", str(SERVER), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Editor(process)
    finally:
        process.terminate()
        process.wait(30)


def new(name: str) -> str:
    """The URI of a stack file that nobody has written yet."""
    return (stack_file.folder() / f"Pulumi.{name}.yaml").as_uri()


def test_every_stack_file_is_right(editor: Editor) -> None:
    assert {file: editor.open(file.as_uri(), file.read_text()) for file in FILES} == {file: [] for file in FILES}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_shows_at_its_line(editor: Editor, mistake: str) -> None:
    found = editor.open(new(f"mistake-{[*MISTAKES].index(mistake)}"), STACK.format(line=LINE, mistake=mistake))
    assert [line for line, _ in found] == [4], found
    assert MISTAKES[mistake] in found[0][1]


def test_keys_complete_and_say_what_they_are(editor: Editor) -> None:
    text = f"{LINE}\nconfig:\n  superset-async:topology: minimal\n  superset-async:web:\n    min_replicas: 2\n    \n"
    uri = new("complete")
    assert editor.open(uri, text) == []
    assert {"max_replicas", "login_rate"} <= editor.completions(uri, 5, 4)
    assert "pods at rest" in editor.hover(uri, 4, 8)
