"""Run in Superset's environment: what each client of the metadata database gets of a server over TLS.

Usage: python -m tests.components.postgres_clients_process TOPOLOGY. Prints, as JSON, "ok" or the error of each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import create_engine

from runtime import config
from runtime.environment import metadata_database
from topology.model import Topology


def main(topology: Topology) -> dict[str, str]:
    settings: Any = config.render(topology, dict(os.environ))

    def engine() -> None:
        with create_engine(settings["SQLALCHEMY_DATABASE_URI"]).connect() as connection:
            assert connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar()

    def psycopg() -> None:
        metadata_database.connect(topology, os.environ, "test").close()

    def results() -> None:
        celery = Celery("test")
        celery.conf.update(
            {key: value for key, value in settings["CELERY_CONFIG"].items() if "result" in key or "database" in key}
        )
        celery.backend.store_result("of-a-task", 42, "SUCCESS")
        assert celery.backend.get_task_meta("of-a-task")["result"] == 42

    said: dict[str, str] = {}
    clients: dict[str, Callable[[], None]] = {"engine": engine, "psycopg": psycopg, "results": results}
    for name, use in clients.items():
        try:
            use()
            said[name] = "ok"
        except Exception as error:
            said[name] = str(error)
    return said


if __name__ == "__main__":
    print(json.dumps(main(Topology.model_validate_json(Path(sys.argv[1]).read_text()))))
