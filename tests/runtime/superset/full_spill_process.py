"""Run in Superset's environment, in a mount namespace of its own: results that spill to a file system without room, as JSON.

Usage: unshare --user --map-root-user --mount -- python -m tests.runtime.superset.full_spill_process
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from runtime.environment import redis_databases, secrets
from runtime.environment.process_topology import load_topology
from runtime.superset import caches

#: Of the file system, and of what is stored on it.
ROOM, LARGE = 2**20, 2**18


def main() -> None:
    """Print what was said of a result without room, what is left of it, and what became of others, before and afterwards."""
    from superset.exceptions import SupersetErrorException

    topology = load_topology(os.environ)
    assert topology.caching.spill
    folder = Path(topology.caching.spill.folder)
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=True)
    store = caches.results(redis_databases.database(topology, secrets.read(topology, os.environ), "query_results"))
    before, late, small = os.urandom(LARGE), os.urandom(LARGE), b"small"
    store.set("before", before, 60)
    ballast = folder / "ballast"
    _fill(ballast)
    answer: dict[str, Any] = {}
    try:
        store.set("late", late, 60)
    except SupersetErrorException as error:
        answer["said"], answer["kind"] = error.error.message, error.error.error_type.value
    answer["kept"] = [store.get(key) == value for key, value in (("before", before), ("late", late))]
    answer["small"] = [store.set("small", small, 60), store.get("small") == small]
    answer["files"] = len(list((folder / "query_results").iterdir()))
    ballast.unlink()
    answer["again"] = [store.set("late", late, 60), store.get("late") == late]
    print(json.dumps(answer))


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return


if __name__ == "__main__":
    main()
