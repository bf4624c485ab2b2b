"""Run in Superset's environment: migrates the database at the URL given to the newest revision, twice, and prints both starts."""

from __future__ import annotations

import json
import sys

from sqlalchemy import create_engine

from runtime.queries import migrations


def main(url: str) -> None:
    """Print a list: the revisions before each of two runs, or the words of the refusal."""
    found: list[str | None] = []
    try:
        for _ in range(2):
            with create_engine(url).begin() as connection:
                found.append(migrations.upgrade(connection))
    except migrations.UnknownRevisionError as error:
        found.append(str(error))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
