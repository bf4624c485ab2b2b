"""Run in Superset's environment: what is executed behind a pooler, and what is refused there.

Usage: pooled_process.py URI READS KEEP AUTOCOMMIT, the last three `yes` or `no`. Prints as JSON the result of a statement or its
error, and what a connection of another application finds set there afterwards.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import psycopg2
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from runtime.superset.statement_timeout import StatementTimeout, engine_params

SET = ("statement_timeout", "default_transaction_read_only", "application_name")


def executed(uri: str, reads: bool, keep: bool, autocommit: bool) -> Any:
    """The value of a statement, or the class of its error and its words."""
    limits = StatementTimeout(default_seconds=60, most_seconds=60)
    url, params = limits(make_url(uri), engine_params(60, read_only=reads, keep=keep))
    if autocommit:
        params["isolation_level"] = "AUTOCOMMIT"
    engine = create_engine(url, poolclass=NullPool, **params)
    try:
        with engine.connect() as connection:
            return connection.exec_driver_sql("SELECT 7").scalar()
    except Exception as error:
        cause = getattr(error, "orig", error)
        return [type(cause).__name__, str(cause)]


def main() -> None:
    """Print both."""
    uri, *told = sys.argv[1:]
    result = executed(uri, *(each == "yes" for each in told))
    other = psycopg2.connect(uri, application_name="other")
    other.autocommit = True
    with other.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in SET))
        print(json.dumps({"result": result, "set": cursor.fetchone()}))


if __name__ == "__main__":
    main()
