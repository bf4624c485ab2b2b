"""Which versions the modules that lean on internals were tested with: they refuse any other at start, not in a request.

A module calls `require` where a process installs it, or as it is imported; `runtime.start.superset_config` imports at the start
of a process also what Celery would load later.
"""

from __future__ import annotations

from importlib import metadata

#: Distributions whose internals are leant on, and what of each version was tested: patch releases change none of them.
TESTED: dict[str, tuple[int, ...]] = {
    "apache-superset": (6, 1),
    "celery": (5, 6),
    "kombu": (5, 6),
    "flask-appbuilder": (5, 0),
    "flask-caching": (2, 3),
    "sqlalchemy": (1, 4),
    "gunicorn": (23, 0),
}


class UntestedVersionError(RuntimeError):
    """The installed version is one whose internals may differ; the message names the module and the way out."""


def require(module_name: str, *distributions: str) -> None:
    """Return where the installed `distributions` (default: Superset) are tested ones; UntestedVersionError, which ends the
    process's start, for the first that is not.
    """
    for name in distributions or ("apache-superset",):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = ""
        if not tested(name, version):
            wanted = ".".join(map(str, TESTED[name]))
            raise UntestedVersionError(
                f"{module_name} leans on internals of {name} {wanted}.x, and {version or 'none'} is installed. Install "
                f"{wanted}.x (requirements/superset.in), or check that module against the new version and change TESTED in "
                "runtime/environment/versions.py"
            )


def tested(distribution: str, version: str) -> bool:
    """Whether `version`, as package metadata has it ("6.1.0", "6.1.0rc2"), is a patch release of the tested one."""
    wanted = TESTED[distribution]
    return version.split(".")[: len(wanted)] == [str(part) for part in wanted]
