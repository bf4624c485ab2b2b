"""Run in Superset's environment: prints the fingerprint of each statement of a JSON list on its standard input."""

from __future__ import annotations

import json
import sys

from runtime.queries.fingerprints import fingerprint

if __name__ == "__main__":
    print(json.dumps([fingerprint(sql, dialect) for sql, dialect in json.load(sys.stdin)]))
