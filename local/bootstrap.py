"""`python -m local.bootstrap MARKER FINGERPRINT`: all that the local platform needs in its databases, in one Superset start-up.

Runs in Superset's environment. What `runtime.start.init` does, and the sample beside it: PostgreSQL generates the rows while this
process migrates. At the end the marker file says what was made, and from what.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local.state import write_private
from runtime.environment.process_topology import load_topology
from runtime.environment.secrets import ConfigurationError
from runtime.environment.steps import InitError
from runtime.start.init import exclusive, prepare, say
from runtime.superset import sample
from runtime.superset.preparation import superset_app


def main(marker: Path, fingerprint: str) -> int:
    """Bootstrap, write the marker, and return the exit code."""
    started = time.monotonic()
    topology = load_topology(os.environ)
    # Imported by one thread first: two at once meet a half-initialized module.
    import sqlalchemy.dialects.postgresql.psycopg2  # noqa: F401

    samples = [database for database in topology.databases if database.sample]
    try:
        with ThreadPoolExecutor() as threads:
            tables = [threads.submit(sample.ensure_table, os.environ[str(database.uri_env)]) for database in samples]
            with exclusive(topology, os.environ), superset_app() as app:
                say(f"Superset started in {time.monotonic() - started:.1f} s")
                ids = prepare(app, topology, os.environ)
                made = [table.result() for table in tables]
                say(f"sample tables created: {sum(made)} of {len(made)}")
                datasets = [sample.ensure_dashboard(database.name, topology.admin_username) for database in samples]
    except (ConfigurationError, InitError) as error:
        say(str(error))
        return 1
    first = samples[0].name if samples else next(iter(ids), None)
    known = {
        "fingerprint": fingerprint,
        "database_id": ids.get(first) if first else None,
        "dataset_id": datasets[0] if datasets else None,
        "dashboard": sample.DASHBOARD_SLUG if samples else None,
    }
    write_private(marker, json.dumps(known, indent=1))
    say(f"ready after {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
