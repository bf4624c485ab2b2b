"""A team's own module: its files as the platform carries them, and what is wrong with them before any process starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from topology import stack_file
from topology.model import Topology
from topology.problems import Problem
from topology.superset_ownership import assigned, refusal, secrets_in_clear

KEY = "superset.config_module"
#: What a ConfigMap holds at most, less what its own fields need.
MOST_BYTES = 1_000_000
_LEFT_OUT = ("__pycache__", ".git")


@dataclass(frozen=True)
class OwnModule:
    """The files of a team's module by their path, the first one to load, and a digest of all of them."""

    entry: str
    files: Mapping[str, str] = field(repr=False)

    @property
    def digest(self) -> str:
        """Changes with any file."""
        whole = hashlib.sha256()
        for path in sorted(self.files):
            whole.update(f"{path}\0{len(self.files[path])}\0{self.files[path]}".encode())
        return whole.hexdigest()[:32]


def in_image(topology: Topology) -> str | None:
    """The file or folder in the image (`local`: on this machine) that the stack names by an absolute path; None for none."""
    named = topology.superset.config_module
    return named.rstrip("/") if named and named.startswith("/") else None


def read(topology: Topology) -> tuple[OwnModule | None, list[Problem]]:
    """The module that stands beside the stack files, and what is wrong with it; None where there is none to carry."""
    named = topology.superset.config_module
    if named is None or in_image(topology):
        return None, []
    path = stack_file.folder() / named
    try:
        files = _files(path)
    except OSError as error:
        return None, [
            Problem(KEY, named, f"cannot be read: {error.strerror} ({path})", "Paths are relative to the stack file")
        ]
    except UnicodeDecodeError as error:
        return None, [
            Problem(KEY, named, f"has a file that is no UTF-8 text ({error.reason})", "Put such files into the image")
        ]
    entry = path.name if path.is_file() else f"{path.name}/__init__.py"
    module = OwnModule(entry, files)
    own = topology.superset
    decided = {"signs_on": own.sign_on is not None, "embeds": own.embedding is not None}
    return module, list(check(named, module, **decided, settings=own.settings))


def _files(path: Path) -> dict[str, str]:
    if path.is_file():
        return {path.name: path.read_text(encoding="utf-8")}
    if not path.is_dir():
        raise FileNotFoundError(2, "no such file or folder")
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part in _LEFT_OUT or part.startswith(".") for part in file.relative_to(path).parts)
    ]
    return {str(PurePosixPath(path.name, *file.relative_to(path).parts)): file.read_text(encoding="utf-8") for file in found}


def check(
    named: str, module: OwnModule, *, signs_on: bool, embeds: bool, settings: Mapping[str, object]
) -> Iterator[Problem]:
    """What is wrong with a module's source: too large, no Python, or it sets what the platform or the stack file decides."""
    if module.entry not in module.files:
        yield Problem(KEY, named, "is a folder without __init__.py", "Add one: it is what is loaded")
        return
    size = sum(len(text.encode()) for text in module.files.values())
    if size > MOST_BYTES:
        fix = "Put it into the image, and name its absolute path"
        yield Problem(KEY, named, f"has {size} bytes, and a ConfigMap holds {MOST_BYTES}", fix)
    for path, source in module.files.items():
        if not path.endswith(".py"):
            continue
        try:
            names, in_clear = list(assigned(source)), list(secrets_in_clear(source))
        except SyntaxError as error:
            yield Problem(KEY, named, f"is no Python: {path}:{error.lineno}: {error.msg}", "Correct it")
            continue
        for name, line in in_clear:
            if refusal(name, signs_on=signs_on, embeds=embeds) is None:
                fix = f'Write {name} = os.environ["{name}"], and superset.env.{name}: {{}} or the Secret that has it'
                yield Problem(KEY, f"{path}:{line}", f"has {name}, a secret, which would stand in a ConfigMap in clear", fix)
        for name, line in names if path == module.entry else ():
            if instead := refusal(name, signs_on=signs_on, embeds=embeds):
                yield Problem(KEY, f"{path}:{line}", f"sets {name}, which is decided by the platform", instead)
            elif name in settings:
                yield Problem(
                    KEY, f"{path}:{line}", f"sets {name}, and so does superset.settings.{name}", "Keep one of them"
                )
