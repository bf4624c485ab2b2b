"""`GET /api/v1/superset_async/slow`: what `superset-async slow` asks the web tier, for those who may read Superset's action log.

Imported only inside Superset.

Leans on Flask-AppBuilder's `BaseApi`, on the permission's name, on `SQLGLOT_DIALECTS` of Superset's parser, and on the columns of
the tables query and dbs (read and tested with Superset 6.1.0; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from flask import Flask, Response, request
from flask_appbuilder import AppBuilder
from flask_appbuilder.api import BaseApi, expose, safe
from flask_appbuilder.security.decorators import protect
from sqlalchemy import text
from sqlalchemy.engine.url import make_url

from runtime.environment import process_topology, versions
from runtime.observability import slow
from runtime.queries.fingerprints import fingerprint

#: A week: the parser needs time for each text.
MOST_HOURS = 168.0


class SlowApi(BaseApi):
    """The statements that take most time, as data."""

    resource_name = "superset_async"
    class_permission_name = "Log"
    method_permission_name = {"slow": "read"}  # noqa: RUF012 - as its base class has it
    allow_browser_login = True
    openapi_spec_tag = "Superset async"

    @expose("/slow", methods=("GET",))
    @protect()
    @safe
    def slow(self) -> Response:
        """Answer with `slow.report`, or with 400 and what is wrong with the parameters `by` and `hours`."""
        by = request.args.get("by", "total")
        try:
            hours = float(request.args.get("hours", "24"))
        except ValueError:
            hours = 0.0
        if by not in slow.BY or not 0 < hours <= MOST_HOURS:
            return self.response_400(
                message=f"by must be one of {', '.join(slow.BY)}, hours above 0 and at most {MOST_HOURS:g}"
            )
        return self.response(200, result=collected(cast("slow.By", by), hours))


def install(app: Flask) -> None:
    """Add the API to Superset's application."""
    versions.require(__name__)
    appbuilder: AppBuilder = app.extensions["appbuilder"]
    appbuilder.add_api(SlowApi)


def collected(by: slow.By, hours: float) -> dict[str, Any]:
    """The report of the last `hours` from the metadata database."""
    from superset.extensions import db

    asked = {"hours": hours}
    executed = [
        slow.Executed(
            kind, str(subject), str(digest), str(database), str(user), str(queue), str(outcome), float(seconds), int(n)
        )
        for kind, subject, digest, database, user, queue, outcome, seconds, n in db.session.execute(
            text(slow.EXECUTED), asked
        )
    ]
    fingerprints = _fingerprints((str(row[0]), str(row[1]), row[2]) for row in db.session.execute(text(slow.TEXTS), asked))
    return slow.report(process_topology.current(), by, hours, executed, fingerprints)


def _fingerprints(texts: Any) -> Callable[[str], str]:
    """The fingerprint of each text by its digest; one that ended meanwhile, or has no text, is its digest."""
    from superset.sql.parse import SQLGLOT_DIALECTS

    known: dict[str, str] = {}
    for digest, sql, uri in texts:
        dialect = SQLGLOT_DIALECTS.get(make_url(uri).get_backend_name()) if uri else None
        known[digest] = fingerprint(sql, dialect)
    return lambda digest: known.get(digest, f"(gone: {digest[:8]})")
