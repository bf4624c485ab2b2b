"""Whether Superset's environment on this machine really has the drivers that a stack says it has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping

from local import binaries
from topology import drivers
from topology.model import Topology
from topology.problems import MendableError

#: Loads the dialect and the driver of a scheme, as SQLAlchemy does for a connection.
_LOAD = "import sys; from sqlalchemy.engine.url import make_url; make_url(sys.argv[1] + '://').get_dialect().dbapi()"


class MissingDriverError(MendableError):
    """Databases whose driver is not installed; names each package."""


def check(topology: Topology, uris: Mapping[str, str]) -> None:
    """MissingDriverError for schemes of the stack's databases that Superset's environment cannot load.

    The locked packages need no question: a test asks for them.
    """
    given = [*(database.uri for database in topology.databases if database.uri), *uris.values()]
    missing = list(_missing({drivers.scheme_of(uri) for uri in given} - drivers.IN_IMAGE))
    if missing:
        raise MissingDriverError("drivers of this stack's databases are not installed here:\n" + "\n".join(missing))


def _missing(schemes: set[str]) -> Iterator[str]:
    python = binaries.superset_python()
    for scheme in sorted(schemes):
        done = subprocess.run([str(python), "-c", _LOAD, scheme], check=False, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            package = drivers.PACKAGES.get(scheme, drivers.PACKAGES.get(scheme.partition("+")[0], "its package"))
            yield f"  - {scheme}:// ({reason}). Install it: .venv/bin/uv pip install --python {python} {package}"
