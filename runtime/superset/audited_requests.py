"""Who ran, stopped, fetched or exported what, and who logged in and out, in the audit trail before the answer is given.

What is recorded is an endpoint's (`ACTIONS`), whatever its answer: who was refused is recorded too. A log-in is recorded where
Flask-AppBuilder has found out whether it is good, by whatever way it came.

Leans on the names of Superset's and Flask-AppBuilder's endpoints, wraps `auth_user_db`, `auth_user_ldap`, `auth_user_oauth` and
`auth_user_remote_user` of the security manager, and listens to Flask-Login's signal of a log-out (read and tested with Superset
6.1.0; no upstream issue known).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from flask import Flask, Response, request

from runtime.environment import audit_trail, hooks, json_logs, process_topology, versions
from runtime.environment.audit_records import Value
from runtime.superset import principals

#: What each endpoint is in the trail.
ACTIONS: Mapping[str, str] = {
    "SqlLabRestApi.execute_sql_query": "query.run",
    "SqlLabRestApi.estimate_query_cost": "query.estimate",
    "SqlLabRestApi.get_results": "query.fetch",
    "SqlLabRestApi.export_csv": "query.export",
    "SqlLabRestApi.export_streaming_csv": "query.export",
    "QueryRestApi.stop_query": "query.stop",
    "ChartDataRestApi.data": "chart.run",
    "ChartDataRestApi.get_data": "chart.run",
    "ChartDataRestApi.data_from_cache": "chart.fetch",
    "Superset.explore_json": "chart.run",
    "Superset.explore_json_data": "chart.fetch",
    "ChartStopApi.stop": "chart.stop",
    "Datasource.samples": "data.view",
    "DatasourceRestApi.get_column_values": "data.view",
    "DatabaseRestApi.upload": "data.upload",
    "SecurityRestApi.guest_token": "guest_token.issue",
    "LiveApi.ask": "worker.ask",
    "ImportExportRestApi.export": "assets.export",
    "ImportExportRestApi.import_": "assets.import",
    **{
        f"{kind}RestApi.{name}": f"assets.{action}"
        for kind in ("Chart", "Dashboard", "Database", "Dataset", "SavedQuery", "Theme")
        for name, action in (("export", "export"), ("import_", "import"))
    },
}
#: Formats of a chart's data that are files.
FILES = frozenset({"csv", "xlsx"})
#: Endpoints of a log-in, which one address may ask so often a second.
LOG_INS = frozenset({"SecurityApi.login", "AuthDBView.login", "AuthLDAPView.login", "SupersetAuthView.login"})
LIMITED = 429
#: Ways of logging in, by the method of the security manager that finds out whether it is good.
WAYS = {"auth_user_db": "password", "auth_user_ldap": "ldap", "auth_user_oauth": "oidc", "auth_user_remote_user": "proxy"}
#: A longer name is cut: what stands in a form is anybody's.
NAME = 128
ACCEPTED = 202


def install(app: Flask) -> None:
    """Record in this web process; UntestedVersionError for a Superset of another version."""
    from flask_login import user_logged_out

    versions.require(__name__, "apache-superset", "flask-appbuilder")
    if not audit_trail.is_kept():
        return
    app.after_request(_recorded)
    manager = type(app.extensions["appbuilder"].sm)
    for name, way in WAYS.items():
        hooks.replace(manager, name, __name__, _found_out(way))
    # A signal holds its receivers only weakly.
    user_logged_out.connect(_logged_out, app, weak=False)


def _recorded(response: Response) -> Response:
    endpoint = request.endpoint or ""
    action = ACTIONS.get(endpoint)
    if action is not None and not (action == "data.view" and request.method == "OPTIONS"):
        asked = _asked()
        if action == "chart.run" and _format(asked) in FILES:
            action = "chart.export"
        outcome = audit_trail.outcome_of(response.status_code)
        audit_trail.write(action, outcome, **_who(), status=response.status_code, **_what(asked), **_given(response))
    elif endpoint in LOG_INS and response.status_code == LIMITED:
        audit_trail.write("login", "refused", **_address(), status=LIMITED)
    return response


def _who() -> dict[str, Value]:
    return {"user": principals.username(), **_address()}


def _address() -> dict[str, Value]:
    return {"address": request.remote_addr}


def _asked() -> Mapping[str, Any]:
    asked = request.get_json(silent=True) if request.is_json else request.form
    return cast("Mapping[str, Any]", asked) if isinstance(asked, Mapping) else {}


def _format(asked: Mapping[str, Any]) -> str:
    return str(asked.get("result_format") or request.args.get("format") or "").lower()


def _what(asked: Mapping[str, Any]) -> dict[str, Value]:
    """Which query, chart or object it is about: by numbers and names of Superset's, in what was asked for."""
    form, source, user = (_object(asked, name) for name in ("form_data", "datasource", "user"))
    path: dict[str, Any] = dict(request.view_args or {})
    found: dict[str, Any] = {
        **{name: json_logs.known().get(name) for name in ("query_id", "task_id", "tenant", "trace_id")},
        "client_id": asked.get("client_id") or path.get("client_id"),
        "database_id": asked.get("database_id"),
        "chart_id": form.get("slice_id") or (path.get("pk") if request.endpoint == "ChartDataRestApi.get_data" else None),
        "dashboard_id": form.get("dashboardId"),
        "datasource": f"{source['id']}__{source.get('type', 'table')}" if "id" in source else _datasource(path),
        "format": _format(asked),
        "job_id": path.get("job_id"),
        "worker": path.get("name") if request.endpoint == "LiveApi.ask" else None,
        "asked": path.get("what") if request.endpoint == "LiveApi.ask" else None,
        "assets": request.args.get("q") if (request.endpoint or "").endswith(".export") else None,
        "guest": user.get("username") if request.endpoint == "SecurityRestApi.guest_token" else None,
        "sql": asked.get("sql") if process_topology.started().superset.audit_sql else None,
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _datasource(path: Mapping[str, Any]) -> str | None:
    named = {**request.args, **path}
    return f"{named['datasource_id']}__{named.get('datasource_type')}" if "datasource_id" in named else None


def _object(asked: Mapping[str, Any], name: str) -> dict[str, Any]:
    value: Any = asked.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _given(response: Response) -> dict[str, Value]:
    """The job that a chart's answer names."""
    is_chart = (request.endpoint or "").startswith(("ChartDataRestApi.", "Superset."))
    if not is_chart or response.status_code != ACCEPTED or not response.is_json:
        return {}
    answer: Any = response.get_json(silent=True)
    job: Any = cast("dict[str, Any]", answer).get("result", answer) if isinstance(answer, dict) else {}
    return {"job_id": str(cast("dict[str, Any]", job).get("job_id", ""))} if isinstance(job, dict) else {}


def _found_out(way: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrapped(shipped: Callable[..., Any]) -> Callable[..., Any]:
        def auth_user(self: Any, *args: Any, **kwargs: Any) -> Any:
            user = shipped(self, *args, **kwargs)
            claimed = next(iter((*args, *kwargs.values())), "")
            if isinstance(claimed, dict):
                info = cast("dict[str, Any]", claimed)
                claimed = info.get("username") or info.get("email") or ""
            name = str(getattr(user, "username", None) or claimed or "")[:NAME]
            audit_trail.write("login", "ok" if user else "refused", user=name, way=way, **_address())
            return user

        return auth_user

    return wrapped


def _logged_out(_app: object, user: Any = None, **_: Any) -> None:
    audit_trail.write("logout", "ok", user=str(getattr(user, "username", "") or ""), **_address())
