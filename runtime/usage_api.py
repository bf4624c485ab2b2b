"""`GET /api/v1/superset_async/usage`: what `superset-async cost` asks the web tier, for those who may read Superset's action log.

That permission (`can read on Log`) is Superset's own and an administrator's. Imported only inside Superset.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from typing import Any, cast

from runtime import live, usage

_api: Any = import_module("flask_appbuilder.api")
_protect: Any = import_module("flask_appbuilder.security.decorators").protect
#: A year: no more is kept by default than a quarter of it.
MOST_HOURS = 8784.0


class UsageApi(_api.BaseApi):
    """Usage and cost, as data."""

    resource_name = "superset_async"
    class_permission_name = "Log"
    method_permission_name = {"usage": "read"}  # noqa: RUF012 - as its base class has it
    allow_browser_login = True
    openapi_spec_tag = "Superset async"

    @_api.expose("/usage", methods=("GET",))
    @_protect()
    @_api.safe
    def usage(self) -> Any:
        """Answer with `runtime.usage.report`, or with 400 and what is wrong with the parameters `by` and `hours`."""
        asked = import_module("flask").request.args
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
    session = import_module("superset.extensions").db.session
    text = import_module("sqlalchemy").text
    of_hours, of_month = (
        [
            usage.Used(str(name), str(queue), int(queries), int(failed), float(seconds))
            for name, queue, queries, failed, seconds in session.execute(
                text(usage.statement(by)), {"since": since, "until": until}
            )
        ]
        for since, until in usage.windows(hours, now)
    )
    return usage.report(live.topology(), by, hours, used=of_hours, month=of_month, now=now)


def install(app: Any) -> None:
    """Add the API to Superset's application."""
    app.appbuilder.add_api(UsageApi)
