"""The shell and SQL files that pods mount from a ConfigMap, as they are: what differs by pod comes in environment variables.

`make lint` runs shellcheck on them.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

#: Every file of this package that pods mount.
Script = Literal[
    "alive.sh",
    "dump.sh",
    "find-primary.sh",
    "hand-over.sh",
    "join.sh",
    "prepare.sh",
    "ready.sh",
    "renew.sh",
    "restore.sh",
    "roles.sql",
    "watch.sh",
]


def text(name: Script) -> str:
    """The text of a file; FileNotFoundError where the installation lacks it."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def texts(*names: Script) -> dict[str, str]:
    """Files by name, as the data of a ConfigMap."""
    return {name: text(name) for name in names}
