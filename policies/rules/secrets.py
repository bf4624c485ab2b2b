"""Rules about secrets: long, generated, in Secrets and nowhere else, the same for all who must share them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from policies.graph import Graph, UnknownValueError, at
from policies.processes import CeleryProcess, celery_processes, configuration_of, web_processes
from policies.rule import Option, Options, Plain, Rules, kinds, types
from policies.workloads import Container, containers, data_of
from runtime.environment.secrets import weak

RULES = Rules("policy-secrets")
#: Names under which a secret is kept.
_NAME = re.compile(
    r"(?i)(passw(or)?d|_pass$|secret|token|api_?key|secret_?key|private_?key|(database|broker|redis)_ur[il]|_dsn$)"
)
_POINTER = re.compile(r"(?i)(_file|_env|_path|_name|_ref|_header|_cookie|_expires?|_ttl)$")
#: A password in a URL, and one that is assigned or given as an option. An ARN has `:secret:` before a name, which is none.
_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s:/@\"']*:([^\s@/$(){}<>\"']{3,})@")
_ASSIGNED = re.compile(
    r"(?i)(?<![\w:-])(?:[\w-]*(?:password|passwd|secret|token|secret_?key|requirepass))[\"']?(?:\s*=|:)\s*[\"']?"
    r"([^\s\"'$(){}<>,;%:]{4,})|--(?:password|requirepass)[\s=]+([^\s\"'$(){}<>-][^\s\"'$]*)"
)
#: Values that everyone tries first.
_KNOWN = frozenset(
    {"admin", "superset", "password", "secret", "postgres", "redis", "test", "root", "changeme", "thisisasecret_1234"}
)
_HARMLESS = frozenset(
    {"yes", "no", "true", "false", "none", "null", "required", "optional", "from", "psycopg2", "scram-sha-256"}
)
#: Shorter values of Secrets are words that stand elsewhere for good reasons.
_SHORTEST_SEARCHED = 12


def _values(graph: Graph) -> list[tuple[str, str]]:
    """Every secret value of the graph, with where it is kept."""
    found: list[tuple[str, str]] = []
    for secret in graph.of_kind("Secret"):
        # A value that is not known yet cannot stand anywhere in clear.
        with suppress(UnknownValueError):
            for key, value in data_of(graph, "Secret", secret.namespace, secret.object_name).items():
                if isinstance(value, str) and len(value) >= _SHORTEST_SEARCHED and _NAME.search(key.replace("-", "_")):
                    found.append((value, f"{secret.title} {key}"))
    return found


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text inside plain data, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _texts(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, inner in enumerate(cast("list[Any]", value)):
            yield from _texts(inner, f"{path}[{place}]")


def _plain_objects(graph: Graph) -> list[Plain]:
    """Every object of the cluster but Secrets."""
    return [Plain(each) for each in graph.resources if each.is_kubernetes and each.kind != "Secret"]


@RULES.rule(
    "secrets-in-clear",
    _plain_objects,
    fix="Keep the value in a Secret, and refer to it (secretKeyRef, TriggerAuthentication)",
    runbook="in-clear",
    loses_data=True,
)
def in_clear(found: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """What is in a ConfigMap, an argument, an annotation or a custom resource is read by many more than a Secret is."""
    for path, text in _texts(found.resource.inputs):
        for value, where in graph.derive(_values):
            if value in text:
                yield f"has the value of {where} at {path}"
        if path.startswith("spec.names"):
            continue
        if any(not _is_harmless(match[1]) for match in _IN_URL.finditer(text)):
            yield f"has a URL with a password at {path}"
        elif any(not _is_harmless(match[1] or match[2]) for match in _ASSIGNED.finditer(text)):
            yield f"has a password at {path}"


def _is_plain(value: str) -> bool:
    """Whether a variable's value is a switch, a number, a path or a reference to another variable."""
    return value.lower() in _HARMLESS or value.isdigit() or value.startswith(("/", "$("))


def _is_harmless(value: str) -> bool:
    return value.lower() in _HARMLESS or value.startswith(("env", "os."))


@RULES.rule(
    "secrets-in-environment",
    containers,
    fix="Take it from a Secret by valueFrom.secretKeyRef",
    runbook="in-clear",
    loses_data=True,
    alone=True,
)
def in_environment(container: Container, graph: Graph, options: Options) -> Iterator[str]:
    """A variable's literal value is shown by every kubectl describe."""
    for variable in at(container.spec, "env", default=[]):
        name, value = at(variable, "name", default=""), at(variable, "value")
        if value and _NAME.search(name) and not _POINTER.search(name) and not _is_plain(str(value)):
            yield f"container {container.name} has {name} in clear"


def _outputs(graph: Graph) -> list[Plain]:
    stacks = graph.of_type("pulumi:pulumi:Stack") or list(graph.resources[:1])
    return [Plain(each) for each in stacks[:1]]


@RULES.rule(
    "secrets-in-outputs",
    _outputs,
    fix="Mark the output as secret, or export how to read the value",
    runbook="in-clear",
    loses_data=True,
)
def in_outputs(found: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A plain output shows its value to whoever reads the stack."""
    for path, text in _texts(graph.outputs):
        for value, where in graph.derive(_values):
            if value in text:
                yield f"output {path} has the value of {where}"
        if any(not _is_harmless(match[1]) for match in _IN_URL.finditer(text)):
            yield f"output {path} has a URL with a password"


@RULES.rule(
    "secrets-length",
    types("random:index/randomPassword:", "random:index/randomString:", "random:index/randomBytes:"),
    fix="Generate 32 characters or more",
    runbook="length",
    alone=True,
    options={"least": Option(32, "fewest characters of a generated secret")},
)
def length(found: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Superset signs with these: it refuses a JWT secret under 32 bytes, and shorter ones can be guessed."""
    if found.get("length", default=0) < options["least"]:
        yield f"generates {found.get('length', default=0)} characters"


@RULES.rule(
    "secrets-key-length",
    kinds("Secret"),
    fix="Generate 32 bytes or more, such as openssl rand -base64 42",
    runbook="length",
    alone=True,
)
def key_length(secret: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Whoever guesses Superset's keys can log in as anybody."""
    for key, value in data_of(graph, "Secret", secret.resource.namespace, secret.resource.object_name).items():
        if key.upper().endswith(("SECRET_KEY", "JWT_SECRET")) and isinstance(value, str) and (found := weak(value)):
            yield f"{key} {found}"


@RULES.rule(
    "secrets-known",
    kinds("Secret", "ConfigMap"),
    fix="Generate the value",
    runbook="length",
    alone=True,
)
def known(found: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """Default credentials are the first that anyone tries."""
    data = data_of(graph, found.resource.kind, found.resource.namespace, found.resource.object_name)
    for key, text in data.items():
        if not isinstance(text, str):
            continue
        if _NAME.search(key.replace("-", "_")) and _is_known(text):
            yield f"{key} has a value that is widely known"
        elif any(_is_known(match[1] or match[2]) for match in _ASSIGNED.finditer(text)) or any(
            _is_known(match[1]) for match in _IN_URL.finditer(text)
        ):
            yield f"{key} has a password in it that is widely known"


def _is_known(value: str) -> bool:
    plain = value.lower().strip("\"'")
    return plain in _KNOWN or plain.replace("_", "-").startswith(("change-me", "changeme", "your-"))


@RULES.rule(
    "secrets-shared",
    celery_processes,
    fix="Take SUPERSET_SECRET_KEY and ASYNC_QUERIES_JWT_SECRET from the same key of the same Secret in all of them",
    runbook="shared",
)
def shared(process: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """Web and workers must sign and decrypt with the same keys, or every query and every saved password fails."""
    mine = _references(process.container)
    for web in graph.derive(web_processes):
        if web.resource.namespace != process.resource.namespace:
            continue
        if configuration_of(web, graph) is not process.configuration:
            continue
        theirs = _references(web)
        for name in ("SUPERSET_SECRET_KEY", "ASYNC_QUERIES_JWT_SECRET"):
            if mine.get(name) != theirs.get(name):
                yield f"takes {name} from {_say(mine.get(name))}, and {web.resource.title} from {_say(theirs.get(name))}"


def _references(container: Container) -> dict[str, Any]:
    found = {
        at(each, "name"): (at(each, "valueFrom", "secretKeyRef", "name"), at(each, "valueFrom", "secretKeyRef", "key"))
        for each in at(container.spec, "env", default=[])
        if at(each, "valueFrom", "secretKeyRef") is not None
    }
    for source in at(container.spec, "envFrom", default=[]):
        for name in ("SUPERSET_SECRET_KEY", "ASYNC_QUERIES_JWT_SECRET"):
            if at(source, "secretRef", "name") is not None:
                found.setdefault(name, (at(source, "secretRef", "name"), name))
    return found


def _say(reference: Any) -> str:
    return f"key {reference[1]} of Secret {reference[0]}" if reference else "nowhere"


@RULES.rule(
    "secrets-key-missing",
    web_processes,
    fix="Set SUPERSET_SECRET_KEY from a Secret, or SECRET_KEY in superset_config.py",
    runbook="shared",
)
def key_missing(web: Container, graph: Graph, options: Options) -> Iterator[str]:
    """Superset does not start without a secret key of its own."""
    found = configuration_of(web, graph)
    if found is None:
        return
    variables = web.environment(graph)
    if "SUPERSET_SECRET_KEY" not in variables and (found.topology or "SECRET_KEY" not in found.settings("web")):
        yield "has no secret key"
