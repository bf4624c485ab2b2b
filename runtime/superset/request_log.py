"""Says in each request's environment who asked, and about which query, for the access log: `runtime.environment.json_logs`.

Leans on the routes of Superset's query and SQL Lab APIs, and on what a submission answers (read and tested with Superset 6.1.0;
no upstream issue known).
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, g, request

from runtime.environment import json_logs, versions

#: Where a query is asked about by its id, and where one is submitted.
QUERIES, SUBMISSION = "/api/v1/query/", "/api/v1/sqllab/execute/"
ACCEPTED = 202


def install(app: Flask) -> None:
    """Add it to Superset's application."""
    versions.require(__name__)
    app.before_request(json_logs.forget)
    app.after_request(_told)


def _told(response: Response) -> Response:
    user = str(getattr(g.get("user"), "username", None) or "")
    query_id = _query_id(response)
    json_logs.about(user=user, query_id=query_id)
    request.environ[json_logs.USER] = user
    request.environ[json_logs.QUERY] = query_id
    request.environ[json_logs.TRACE] = json_logs.known().get("trace_id", "")
    return response


def _query_id(response: Response) -> str:
    arguments: dict[str, Any] = request.view_args or {}
    if request.path.startswith(QUERIES) or "query_id" in arguments:
        return str(arguments.get("query_id") or arguments.get("pk") or "")
    if request.path == SUBMISSION and response.status_code == ACCEPTED:
        answer = response.get_json(silent=True) or {}
        return str((answer.get("query") or {}).get("queryId") or "")
    return ""
