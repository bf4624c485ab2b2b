"""`GET /api/v1/superset_async/usage`: what `superset-async cost` asks the web tier, for those who may read Superset's action log.

That permission (`can read on Log`) is Superset's own and an administrator's. Imported only inside Superset.

Leans on Flask-AppBuilder's `BaseApi` and on the permission's name (read and tested with Superset 6.1.0; no upstream issue
known).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from flask import Flask, Response, request
from flask_appbuilder import AppBuilder
from flask_appbuilder.api import BaseApi, expose, safe
from flask_appbuilder.security.decorators import protect
from sqlalchemy import text

from runtime.environment import process_topology, versions
from runtime.observability import usage

#: A year: no more is kept by default than a quarter of it.
MOST_HOURS = 8784.0


class UsageApi(BaseApi):
    """Usage and cost, as data."""

    resource_name = "superset_async"
    class_permission_name = "Log"
    method_permission_name = {"usage": "read"}  # noqa: RUF012 - as its base class has it
    allow_browser_login = True
    openapi_spec_tag = "Superset async"

    @expose("/usage", methods=("GET",))
    @protect()
    @safe
    def usage(self) -> Response:
        """Answer with `usage.report`, or with 400 and what is wrong with the parameters `by` and `hours`."""
        asked = request.args
        by = asked.get("by", "tenant")
        try:
            hours = float(asked.get("hours", "24"))
        except ValueError:
            hours = 0.0
        if by not in usage.BY or not 0 < hours <= MOST_HOURS:
            return self.response_400(
                message=f"by must be one of {', '.join(usage.BY)}, hours above 0 and at most {MOST_HOURS:g}"
            )
        return self.response(200, result=collected(cast("usage.By", by), hours, datetime.now(UTC)))


def collected(by: usage.By, hours: float, now: datetime) -> dict[str, Any]:
    """The report of the last `hours` from the metadata database."""
    from superset.extensions import db

    of_hours, of_month = (
        [
            usage.Used(str(name), str(queue), int(queries), int(failed), float(seconds))
            for name, queue, queries, failed, seconds in db.session.execute(
                text(usage.statement(by)), {"since": since, "until": until}
            )
        ]
        for since, until in usage.windows(hours, now)
    )
    first = db.session.execute(text(usage.FIRST)).scalar()
    return usage.report(process_topology.current(), by, hours, used=of_hours, month=of_month, now=now, first=first)


def install(app: Flask) -> None:
    """Add the API to Superset's application."""
    versions.require(__name__)
    appbuilder: AppBuilder = app.extensions["appbuilder"]
    appbuilder.add_api(UsageApi)
