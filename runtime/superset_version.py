"""Which Superset the modules that lean on its internals were tested with: they refuse any other at start, not in a request."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "apache-superset"
#: Major and minor version; its patch releases change no internals that are leant on.
TESTED = (6, 1)


class UntestedSupersetError(RuntimeError):
    """The installed Superset is one whose internals may differ; the message names the module and the way out."""


def require(module_name: str) -> None:
    """Return where the installed Superset is a tested one; UntestedSupersetError, which ends the process's start, else."""
    version = metadata.version(DISTRIBUTION)
    if not tested(version):
        wanted = ".".join(map(str, TESTED))
        raise UntestedSupersetError(
            f"{module_name} leans on internals of Superset {wanted}.x, and {version} is installed. Install {wanted}.x "
            "(requirements/superset.in), or check that module against the new version and change TESTED in "
            "runtime/superset_version.py"
        )


def tested(version: str) -> bool:
    """Whether `version`, as package metadata has it ("6.1.0", "6.1.0rc2"), is a patch release of the tested one."""
    return version.split(".")[:2] == [str(part) for part in TESTED]
