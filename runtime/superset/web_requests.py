"""How long the web tier takes to answer, by route: Flask's rule, so that no identifier in a path makes a series.

From Flask's own first signal of a request to its last, so that what other parts do before and after a view counts too. Not in it:
how long a request waited for a thread of gunicorn, and the sending of a body.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, Response, request, request_finished, request_started

from runtime.environment import counters
from topology import metric_names
from topology.histograms import REQUEST_BUCKETS

#: Of a request's environment: when it began, and that it is none of a user's.
BEGAN, NOT_COUNTED = "superset_async.began", "superset_async.not_counted"
#: The route of a path that the application does not have, and the method of a client that made one up.
UNMATCHED, OTHER = "unmatched", "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def install(app: Flask) -> None:
    """Have every request of the application counted."""
    request_started.connect(_begin, app, weak=False)
    request_finished.connect(_end, app, weak=False)


def increments(method: str, route: str | None, status: int, seconds: float) -> list[tuple[str, float, dict[str, str]]]:
    """What one answer adds to the counters. `route` is None where the application has none for its path."""
    labels = {"method": method if method in METHODS else OTHER, "route": route or UNMATCHED}
    return [
        (metric_names.REQUESTS, 1, {**labels, "status": str(status)}),
        *counters.observation(metric_names.REQUEST_SECONDS, seconds, REQUEST_BUCKETS, labels),
    ]


def _begin(sender: Flask, **_: Any) -> None:
    request.environ[BEGAN] = time.monotonic()


def _end(sender: Flask, response: Response, **_: Any) -> None:
    began = request.environ.get(BEGAN)
    if began is None or request.environ.get(NOT_COUNTED):
        return
    route = request.url_rule.rule if request.url_rule else None
    counters.count_later(increments(request.method, route, response.status_code, time.monotonic() - began))
