"""A stack's Kubernetes manifests as files, from the same program that the engine runs, and without the engine.

`render` writes one file a kind into a folder that it owns, in the order for `kubectl apply --server-side -f <folder>/`. No
secret is in them: where a value is generated or stored encrypted stands a placeholder, and `secrets_file` gets the Secrets with
real values when it is asked for.
"""

from __future__ import annotations

import os
import random
import re
import string
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from infra import certificates, program, recording
from infra.recording import PLACEHOLDER, Generator, Recording
from topology import stack_file
from topology.checkout import project_folder
from topology.problems import Problem, StackError

#: Kinds in the order in which they are applied: what others refer to comes first. A kind that is not here goes last.
ORDER = (
    "Namespace",
    "PriorityClass",
    "ResourceQuota",
    "NetworkPolicy",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Service",
    "Cluster",
    "StatefulSet",
    "Job",
    "Deployment",
    "CronJob",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "TriggerAuthentication",
    "ScaledObject",
    "Ingress",
    "HTTPRoute",
    "ServiceMonitor",
    "PrometheusRule",
)
#: Where in that folder the AWS resources of a stack are.
AWS_FILE = Path("aws") / "resources.yaml"
#: Lists the files that the last render wrote; kubectl does not read it.
INDEX = ".rendered"
_APPLIED = (".yaml", ".yml", ".json")
_RENDERED_NAME = re.compile(r"\d\d-[a-z]+\.yaml")
_ALPHABET = string.ascii_letters + string.digits
#: Keys of a stack file whose values the program takes as secrets.
_SECRET_KEYS = program.SECRET_KEYS


def render(
    stack: str,
    out_dir: Path | None = None,
    *,
    secrets_file: Path | None = None,
) -> list[Path]:
    """Write the manifests of `stack` to `out_dir` (default `build/<stack>`); the files, in the order of application.

    A file of an earlier render that this one does not write is removed; a manifest that no render wrote is an error, since
    `kubectl apply -f` would take it too. With `secrets_file` the Secrets go there (mode 0600) and not into `out_dir`: values
    are generated, and those that the file has already are kept.

    StackError for what a person can mend; nothing is written then.
    """
    folder = out_dir or project_folder() / "build" / stack
    old = _owned(stack, folder)
    config = stack_file.read(stack)
    masked = _record(stack, config, recording.placeholder, {})
    files = manifest_files(stack, masked.manifests())
    if secrets_file is None:
        _write(folder, files, old)
        return [*(folder / name for name in files), *_write_aws(stack, folder, masked)]
    if folder.resolve() in secrets_file.resolve().parents:
        rule = f"is inside {folder}, which must hold no secret"
        raise StackError(stack, [Problem("secrets_file", str(secrets_file), rule, "Choose another place")])
    known = _known_values(stack, secrets_file, masked)
    real = _record(
        stack,
        config,
        lambda name, length: known.get(recording.placeholder(name, length)) or _generate(length),
        known,
        certificates.Issuer(known),
    )
    secret_name = _file_name("Secret")
    secret_text = manifest_files(stack, real.manifests())[secret_name]
    # The rest comes from the same run: pods are rolled by a digest of the values that they will have.
    files = {name: text for name, text in manifest_files(stack, real.manifests()).items() if name != secret_name}
    _write_private(secrets_file, secret_text)
    _write(folder, files, old)
    # Their secrets stay placeholders: nothing applies this file.
    return [*(folder / name for name in files), secrets_file, *_write_aws(stack, folder, masked)]


def _write_aws(stack: str, folder: Path, recorded: Recording) -> list[Path]:
    """The AWS resources of `recorded` as one file for people, in a folder of its own, where kubectl apply does not look."""
    file = folder / AWS_FILE
    found = [
        {"type": resource.type, "name": resource.name, "inputs": resource.inputs}
        for resource in sorted(recorded.resources, key=lambda each: (each.type, each.name))
        if resource.custom and resource.type.startswith("aws:")
    ]
    if not found:
        file.unlink(missing_ok=True)
        return []
    head = f"# What stacks/Pulumi.{stack}.yaml makes on AWS, as the provider gets it. To be read: nothing applies it.\n"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        head + yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True), encoding="utf-8"
    )
    return [file]


def manifest_files(stack: str, manifests: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """YAML text by file name, one file a kind, each sorted by name: equal for equal manifests, whatever their order."""
    head = f"# Rendered from stacks/Pulumi.{stack}.yaml (make render STACK={stack}). The next render replaces this file.\n"
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for manifest in sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"])):
        by_kind.setdefault(_file_name(manifest["kind"]), []).append(manifest)
    return {name: head + "---\n" + "---\n".join(_yaml(manifest) for manifest in by_kind[name]) for name in sorted(by_kind)}


def _file_name(kind: str) -> str:
    place = ORDER.index(kind) if kind in ORDER else 99
    return f"{place:02d}-{kind.lower()}.yaml"


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines as blocks, so that a configuration file can be read; four times as fast as the plain one."""


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
    represent = cast("Callable[..., yaml.ScalarNode]", dumper.represent_scalar)  # pyright: ignore[reportUnknownMemberType]
    return represent("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _yaml(manifest: Mapping[str, Any]) -> str:
    first = {key: manifest[key] for key in ("apiVersion", "kind", "metadata")}
    return yaml.dump(first | dict(manifest), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _record(
    stack: str,
    config: Mapping[str, Any],
    generate: Generator,
    known: Mapping[str, str],
    issuer: certificates.Issuer | None = None,
) -> Recording:
    """Run the program; the encrypted values of the stack file are placeholders, or what `known` has for those."""
    secret_keys = frozenset(key for key in _SECRET_KEYS if _encrypted(config.get(key)))
    readable: dict[str, Any] = {}
    for key, value in config.items():
        if key in secret_keys:
            readable[key] = _stand_in(key, value, known)
        elif _encrypted(value):
            fix = f"Store it in clear; secrets are {' and '.join(_SECRET_KEYS)}"
            raise StackError(stack, [Problem(key, "(encrypted)", "is a setting that only the engine can read", fix)])
        else:
            readable[key] = value
    program.read(stack, recording.as_engine_config(readable), lambda key: key.partition(":")[2] in secret_keys)
    return recording.record(stack, readable, secret_keys=secret_keys, generate=generate, issuer=issuer)


def _encrypted(value: object) -> bool:
    """Whether the engine encrypted this value of a stack file, or one inside it."""
    if not isinstance(value, dict):
        return False
    inner = cast("dict[str, object]", value)
    return set(inner) == {"secure"} or any(_encrypted(each) for each in inner.values())


def _stand_in(key: str, value: object, known: Mapping[str, str]) -> object:
    inner = cast("dict[str, object]", value)
    if set(inner) == {"secure"}:
        # It has a URI's form, since some of them have to be one.
        mark = f"{PLACEHOLDER}://{key.replace('_', '-')}"
        return known.get(mark, mark)
    return {name: _stand_in(f"{key}/{name}", each, known) if _encrypted(each) else each for name, each in inner.items()}


def _generate(length: int) -> str:
    return "".join(random.SystemRandom().choices(_ALPHABET, k=length))


def _known_values(stack: str, secrets_file: Path, masked: Recording) -> dict[str, str]:
    """Values that `secrets_file` has from an earlier render, by the placeholder that stands for each.

    In `masked`, a recording with placeholders, every secret stands alone under some key of some Secret: that is where its
    value is in the file.
    """
    if not secrets_file.exists():
        return {}
    try:
        documents = [each for each in yaml.safe_load_all(secrets_file.read_text(encoding="utf-8")) if each]
        values = {document["metadata"]["name"]: dict(document["stringData"]) for document in documents}
    except (yaml.YAMLError, TypeError, KeyError, ValueError):
        rule = "exists, and is no file of Secrets from an earlier render"
        problem = Problem("secrets_file", str(secrets_file), rule, "Choose another place, or remove it")
        raise StackError(stack, [problem]) from None
    known = {
        mark: values[name][key]
        for name, manifest in masked.of_kind("Secret").items()
        for key, mark in manifest["stringData"].items()
        if mark.startswith(PLACEHOLDER) and key in values.get(name, {})
    }
    return _without_old_certificates(known, masked)


def _without_old_certificates(known: dict[str, str], masked: Recording) -> dict[str, str]:
    """`known` less the certificates that the provider would make anew: near their end, or of other names. Key and authority go
    with them, since the authority's own key is in no file.
    """
    requests = {each.name: each.inputs for each in masked.resources if each.type == certificates.REQUEST}
    early = {each.name: each.inputs["earlyRenewalHours"] for each in masked.resources if each.type == certificates.SIGNED}
    kept = dict(known)
    for name, request in requests.items():
        made = known.get(certificates.mark(name))
        if made is None or not certificates.is_current(made, {*request["dnsNames"]}, early[name]):
            for mark in (certificates.mark(name), certificates.mark(f"{name}-ca"), recording.placeholder(f"{name}-key", 0)):
                kept.pop(mark, None)
    return kept


def _owned(stack: str, folder: Path) -> list[str]:
    """Names of the files in `folder` that an earlier render wrote; StackError where kubectl would read others too."""

    def refuse(rule: str, fix: str) -> StackError:
        return StackError(stack, [Problem("output", str(folder), rule, fix)])

    if not folder.exists():
        return []
    if not folder.is_dir():
        raise refuse("is a file", "Choose another folder")
    index = folder / INDEX
    written = index.read_text(encoding="utf-8").split() if index.exists() else []
    if not all(_RENDERED_NAME.fullmatch(name) for name in written):
        raise refuse(f"has a {INDEX} with names that no render writes", "Remove the folder yourself, or choose another")
    foreign = sorted(path.name for path in folder.iterdir() if path.suffix in _APPLIED and path.name not in written)
    if foreign:
        rule = f"has {', '.join(foreign)}, which no render wrote and kubectl apply would take too"
        raise refuse(rule, "Move it away, or choose another folder")
    return written


def _write(folder: Path, files: Mapping[str, str], old: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Both old and new names are listed first, so that an interrupted render leaves nothing that the next one does not know.
    (folder / INDEX).write_text("\n".join(sorted({*old, *files})) + "\n", encoding="utf-8")
    for name in set(old) - set(files):
        (folder / name).unlink(missing_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / INDEX).write_text("\n".join(sorted(files)) + "\n", encoding="utf-8")


def _write_private(path: Path, text: str) -> None:
    """Write `path` so that at no moment anybody else can read it, and never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
