"""Run in Superset's environment as a web process that embeds: what a guest without cookies is answered, and others."""

from __future__ import annotations

import json
from typing import Any

from runtime.environment import process_topology
from runtime.superset import preparation
from runtime.superset.embedding import PAGE_HEADER
from tests.runtime.web_process import PASSWORD, Browser

CHARTS = "/api/v1/chart/data"
EVENTS = "/api/v1/async_event/"


class Guest:
    """A page of a guest: it has a token, and keeps no cookie."""

    def __init__(self, app: Any, token: str, page: str) -> None:
        self._client = app.test_client(use_cookies=False)
        self.headers = {"X-GuestToken": token, PAGE_HEADER: page}
        #: Names of the cookies that it was given.
        self.cookies: list[str] = []

    def call(self, method: str, path: str, **more: Any) -> Any:
        """The answer."""
        answer = self._client.open(path, method=method, headers=self.headers, **more)
        self.cookies += [each.partition("=")[0] for each in answer.headers.getlist("Set-Cookie")]
        return answer

    def events(self) -> list[str]:
        """The jobs of which it is told."""
        return [event["job_id"] for event in self.call("GET", EVENTS).json["result"]]


def main() -> None:
    """Print everything as one line of JSON."""
    from superset.app import create_app

    app: Any = create_app()
    plan = process_topology.started()
    embedding = plan.superset.embedding
    assert embedding is not None
    answer: dict[str, Any] = {}
    with app.app_context():
        from superset.extensions import security_manager

        sm: Any = security_manager
        answer["role"] = _role(app, plan, sm)
        sm.add_user("ada", "a", "a", "ada@localhost", [sm.find_role("Admin")], password=PASSWORD)
        form, number, uuid = _dashboard(app)
    admin = Browser(app, "ada", 1)

    def token(username: str, rows: str) -> str:
        resources = [{"type": "dashboard", "id": uuid}]
        # As for a portal in the cluster, which calls the Service.
        with app.test_request_context(base_url="http://web.superset.svc:8088"):
            return sm.create_guest_access_token({"username": username}, resources, [{"clause": rows}])

    guest = Guest(app, token("eve", "one = 1"), "page-1")
    answer["framed"] = _headers(guest.call("GET", f"/embedded/{uuid}"))
    answer["not framed"] = _headers(app.test_client().get("/login/"))
    answer["me"] = list(guest.call("GET", "/api/v1/me/roles/").json["result"]["roles"])
    sent = guest.call("POST", CHARTS, json=form)
    job = sent.json["job_id"]
    answer["sent"] = sent.status_code
    renewed = Guest(app, token("eve", "one = 1"), "page-1")
    others = {
        "another page": Guest(app, guest.headers["X-GuestToken"], "page-2"),
        "another guest": Guest(app, token("mallory", "one = 1"), "page-1"),
        "other rows": Guest(app, token("eve", "one = 2"), "page-1"),
    }
    stop = f"/api/v1/superset_async/charts/{job}"
    answer["others stop"] = {who: other.call("DELETE", stop).status_code for who, other in others.items()}
    answer["stop"] = renewed.call("DELETE", stop).json
    answer["told"] = {"guest": guest.events() == [job], "renewed": renewed.events() == [job]}
    answer["others told"] = {who: other.events() for who, other in others.items()}
    answer["state"] = guest.call("POST", f"/api/v1/dashboard/{number}/filter_state", json={"value": "{}"}).status_code
    answer["cookies"] = guest.cookies
    answer["beside a log-in"] = _beside_a_log_in(app, guest)
    answer["forged"] = Guest(app, guest.headers["X-GuestToken"][:-9] + "forgedxyz", "page-1").call("GET", EVENTS).status_code
    answer["cors"] = {origin: _preflight(app, origin) for origin in (*embedding.origins, "https://evil.example.com")}
    with app.app_context():
        answer["public"] = _public(app, admin)
    print(json.dumps(answer, default=repr))


def _role(app: Any, plan: Any, sm: Any) -> dict[str, Any]:
    """What the init job makes of the guests' role, once and again after an administrator has changed it."""
    said: list[str] = []
    before = len(sm.get_public_permissions())
    made = [preparation.ensure_guest_role(app, plan, said.append)]
    role = sm.find_role(plan.superset.embedding.role)
    sm.del_permission_role(role, sm.find_permission_view_menu("can_read", "Annotation"))
    sm.add_permission_role(role, sm.find_permission_view_menu("can_csv", "Superset"))
    made.append(preparation.ensure_guest_role(app, plan, said.append))
    names = {(each.permission.name, each.view_menu.name) for each in sm.find_role(role.name).permissions}
    return {
        "made": made,
        "said": said,
        "changes stay": ("can_csv", "Superset") in names and ("can_read", "Annotation") not in names,
        "data": sorted(view for permission, view in names if permission.endswith("_access")),
        "public": [before, len(sm.get_public_permissions())],
    }


def _dashboard(app: Any) -> tuple[dict[str, Any], int, str]:
    """The request of the one chart of a dashboard that is embedded, the dashboard's id, and what it is called in its URL."""
    from superset.connectors.sqla.models import SqlaTable, TableColumn
    from superset.models.core import Database
    from superset.models.dashboard import Dashboard
    from superset.models.embedded_dashboard import EmbeddedDashboard
    from superset.models.slice import Slice

    session = app.appbuilder.session
    database = session.query(Database).filter_by(database_name="analytics").one()
    table = SqlaTable(table_name="ones", sql="SELECT 1 AS one", database=database, schema="public", is_sqllab_view=True)
    table.columns.append(TableColumn(column_name="one", type="INTEGER"))
    session.add(table)
    session.flush()
    query = {"columns": ["one"], "metrics": [], "filters": [], "row_limit": 10}
    chart = Slice(slice_name="ones", viz_type="table", datasource_id=table.id, datasource_type="table", params="{}")
    chart.query_context = json.dumps({"datasource": {"id": table.id, "type": "table"}, "queries": [query]})
    dashboard = Dashboard(dashboard_title="Ones", slices=[chart], published=True)
    session.add(dashboard)
    session.flush()
    embedded = EmbeddedDashboard(dashboard_id=dashboard.id, allow_domain_list="")
    session.add(embedded)
    session.commit()
    form = {
        **json.loads(chart.query_context),
        "form_data": {"slice_id": chart.id, "dashboardId": dashboard.id},
        "result_format": "json",
        "result_type": "full",
    }
    return form, dashboard.id, str(embedded.uuid)


def _headers(answer: Any) -> list[Any]:
    """Status, X-Frame-Options, and who may have the page in a frame."""
    policy = answer.headers.get("Content-Security-Policy", "")
    ancestors = [part.strip() for part in policy.split(";") if part.strip().startswith("frame-ancestors")]
    return [answer.status_code, answer.headers.get("X-Frame-Options"), *ancestors]


def _beside_a_log_in(app: Any, guest: Guest) -> dict[str, Any]:
    """Who somebody is with the cookie of a log-in: beside a guest's token, and afterwards without one."""
    client = app.test_client()
    app.config["WTF_CSRF_ENABLED"] = False
    client.post("/login/", data={"username": "ada", "password": PASSWORD})
    app.config["WTF_CSRF_ENABLED"] = True
    as_guest = list(client.get("/api/v1/me/roles/", headers=guest.headers).json["result"]["roles"])
    client.get("/embedded/nosuch")
    return {"guest": as_guest, "user": client.get("/api/v1/me/").json["result"]["username"]}


def _preflight(app: Any, origin: str) -> list[Any]:
    """What a browser may do from a page of `origin`: the origin that is allowed, the header, and whether with cookies."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-guesttoken",
    }
    answer = app.test_client().options(CHARTS, headers=asked).headers
    names = ("Access-Control-Allow-Origin", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials")
    return [answer.get(name) for name in names]


def _public(app: Any, admin: Browser) -> dict[str, Any]:
    """What an administrator's client and a stranger are told where Public may see charts: status, and how many there are."""
    from superset.extensions import security_manager

    sm: Any = security_manager
    sm.add_permission_role(sm.find_role("Public"), sm.find_permission_view_menu("can_read", "Chart"))
    app.appbuilder.session.commit()
    bearer = {"Authorization": admin._headers["Authorization"]}
    asked = {"administrator": bearer, "stranger": {}, "wrong": {"Authorization": bearer["Authorization"][:-9] + "forgedxyz"}}
    answers = {who: app.test_client().get("/api/v1/chart/", headers=headers) for who, headers in asked.items()}
    return {who: [answer.status_code, answer.json.get("count")] for who, answer in answers.items()}


if __name__ == "__main__":
    main()
