"""Cancels statements of queries for beat, which has no Superset: `python -m runtime.start.canceller`.

Says in a line that it is ready; then reads a line of JSON, `[ids of queries, seconds]`, and answers each with a line when their
databases have answered: what was seen of each statement, by the query's id. Ends with its input.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from runtime.queries.canceller import ANSWERED
from runtime.queries.interfaces import superset
from runtime.superset import application

logger = logging.getLogger(__name__)


def main() -> None:
    """Answer until the input ends."""
    # What Superset and drivers print is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    application.create()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        query_ids, seconds = json.loads(line)
        try:
            seen = superset().ending.cancel(query_ids, seconds)
        except Exception as error:
            logger.exception("the statements of queries %s could not be cancelled", query_ids)
            print(f"failed: {type(error).__name__}", file=answers, flush=True)
        else:
            print(f"{ANSWERED}{json.dumps(seen)}", file=answers, flush=True)


if __name__ == "__main__":
    main()
