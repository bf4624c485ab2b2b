"""What `superset-async queue`, `worker` and `query list` ask the web tier, and where a query waits.

`/api/v1/superset_async/queues`, `/workers` and `/queries` are for those who may read Superset's action log (`can read on Log`),
`POST /workers/<name>/<drain|resume>` for those who may write it: both permissions are Superset's own, and an administrator's.
`/place/<id>` is for whose the query is, `DELETE /charts/<job>` for whose browser waits for the chart. Imported only inside
Superset.

Leans on Flask-AppBuilder's `BaseApi`, on Superset's manager of asynchronous charts, on the permissions' names, and on the columns
of the tables query, dbs and ab_user (read and tested with Superset 6.1.0; no upstream issue known).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, g, request
from flask_appbuilder import AppBuilder
from flask_appbuilder.api import BaseApi, expose, safe
from flask_appbuilder.security.decorators import protect
from redis import RedisError
from superset.errors import SupersetErrorType

from runtime.broker import draining, queues, reserved_tasks
from runtime.broker.task_messages import TaskMessage
from runtime.environment import coordination, process_topology, versions
from runtime.environment.metadata_database import Connection
from runtime.observability import exporter, live
from runtime.observability.live import Open
from runtime.queries import chart_jobs, chart_stops, executions, outbox
from runtime.superset.implementation import OPEN
from runtime.tenants.identity import TENANT_HEADER

AWAY = "The broker's Redis does not answer: nobody knows what waits there. Bring it back, then ask again"


class LiveApi(BaseApi):
    """Queues, workers and open queries, as data; and workers that are asked to drain."""

    resource_name = "superset_async"
    class_permission_name = "Log"
    method_permission_name = {"queues": "read", "workers": "read", "queries": "read", "ask": "write"}  # noqa: RUF012
    allow_browser_login = True
    openapi_spec_tag = "Superset async"

    @expose("/queues", methods=("GET",))
    @protect()
    @safe
    def queues(self) -> Response:
        """Answer with `live.queues`."""
        return self._told(lambda: _queues(_broker().read(), _open()))

    @expose("/workers", methods=("GET",))
    @protect()
    @safe
    def workers(self) -> Response:
        """Answer with `live.workers`."""
        return self._told(lambda: live.workers(_published(), _open()))

    @expose("/queries", methods=("GET",))
    @protect()
    @safe
    def queries(self) -> Response:
        """Answer with `live.open_queries`."""
        return self._told(lambda: live.open_queries(_open()))

    @expose("/workers/<name>/<what>", methods=("POST",))
    @protect()
    @safe
    def ask(self, name: str, what: str) -> Response:
        """Ask a worker to drain, or to resume; 404 for one that does not live, with the names of those that do."""
        if what not in ("drain", "resume"):
            return self.response_404()
        try:
            found = draining.ask(coordination.client(), coordination.key(""), name, drain=what == "drain")
            known = "" if found else ", ".join(sorted(each.worker for each in _published())) or "none"
        except RedisError:
            return _away(self)
        return (
            self.response(200, result=name) if found else self.response(404, message=f"no worker {name}; there are: {known}")
        )

    def _told(self, read: Callable[[], Any]) -> Response:
        try:
            return self.response(200, result=read())
        except RedisError:
            return _away(self)


class PlaceApi(BaseApi):
    """Where one's own query waits."""

    resource_name = "superset_async"
    class_permission_name = "Query"
    method_permission_name = {"place": "read"}  # noqa: RUF012 - as its base class has it
    allow_browser_login = True
    openapi_spec_tag = "Superset async"

    @expose("/place/<int:query_id>", methods=("GET",))
    @protect()
    @safe
    def place(self, query_id: int) -> Response:
        """Answer with `live.place`; null for a query that does not wait, 404 for one that is not the user's."""
        from superset.extensions import db, security_manager

        asked = "SELECT user_id FROM query WHERE id = %s"
        owner = db.session.connection().exec_driver_sql(asked, (query_id,)).scalar()
        if owner is None or not (owner == getattr(g.user, "id", None) or security_manager.can_access_all_queries()):
            return self.response_404()
        try:
            work = _open()
            return self.response(200, result=live.place(work, str(query_id), _queues(_broker().read_waiting(), work)))
        except RedisError:
            return _away(self)


class ChartStopApi(BaseApi):
    """One's own chart, stopped by the page that waits for it."""

    resource_name = "superset_async"
    allow_browser_login = True
    openapi_spec_tag = "Superset async"

    @expose("/charts/<job_id>", methods=("DELETE",))
    @safe
    def stop(self, job_id: str) -> Response:
        """Stop a chart job; 404 for one of another channel, or that has ended. `stopped` is false where others wait for it too.

        A job is whose channel it is, which the browser's signed cookie names: a guest's and a visitor's, too.
        """
        from superset.async_events.async_query_manager import AsyncQueryTokenException
        from superset.extensions import async_query_manager

        try:
            channel = async_query_manager.parse_channel_id_from_request(request)
            job = chart_jobs.find(job_id)
            if job is None or job.metadata["channel_id"] != channel:
                return self.response_404()
            return self.response(200, result={"stopped": chart_stops.stop(job, 0, chart_stops.STOPPED)})
        except AsyncQueryTokenException:
            return self.response_404()
        except RedisError:
            return _away(self)


def install(app: Flask) -> None:
    """Add all to Superset's application."""
    versions.require(__name__)
    appbuilder: AppBuilder = app.extensions["appbuilder"]
    appbuilder.add_api(LiveApi)
    appbuilder.add_api(PlaceApi)
    appbuilder.add_api(ChartStopApi)


def _away(api: BaseApi) -> Response:
    # Told from a proxy's 503 by its kind, as a refusal of a query is.
    kind = SupersetErrorType.ASYNC_WORKERS_ERROR
    error = {"message": AWAY, "error_type": kind.value, "level": "error", "extra": {}}
    return api.response(503, errors=[error])


def _published() -> list[reserved_tasks.Reserved]:
    return reserved_tasks.workers(coordination.client(), coordination.key(""))


def _broker() -> exporter.Broker:
    # As this process's own user: the exporter's may only read, and its password is not here.
    return exporter.Broker(*queues.own_broker(), process_topology.current().celery.queues)


def _queues(reading: exporter.Reading, work: list[Open]) -> list[dict[str, Any]]:
    from superset.extensions import db

    recent = [live.Recent(str(queue), int(n), float(mean)) for queue, n, mean in db.session.execute(live.RECENT)]
    return live.queues(process_topology.current(), reading, _published(), work, recent)


def _open() -> list[Open]:
    """Every query and chart that has not ended. Raises RedisError where the registry of charts does not answer."""
    from superset.extensions import db

    connection = db.session.connection()
    return [*_sql(connection), *_charts(connection)]


def _sql(connection: Connection) -> Iterator[Open]:
    rows = connection.exec_driver_sql(
        "SELECT q.id, q.status <> 'pending', COALESCE(u.username, ''), COALESCE(d.database_name, ''), m.message, "
        "COALESCE(e.queue, ''), COALESCE(e.tenant, ''), e.worker, extract(epoch from now()) - COALESCE("
        "CASE WHEN q.status = 'pending' THEN q.start_time ELSE q.start_running_time END, q.start_time, 0) / 1000 "
        "FROM query q LEFT JOIN ab_user u ON u.id = q.user_id LEFT JOIN dbs d ON d.id = q.database_id "
        f"LEFT JOIN {outbox.TABLE} m ON m.query_id = q.id LEFT JOIN {executions.TABLE} e "
        f"ON e.kind = 'sql' AND e.subject = q.id::text AND e.ended_at IS NULL WHERE q.{OPEN}"
    )
    for query_id, running, username, database, message, queue, tenant, worker, seconds in rows:
        state: live.State = "running" if running else "waiting"
        sent = TaskMessage.from_json(message) if message and not running else None
        whose = (sent.queue, sent.headers.get(TENANT_HEADER, "")) if sent else (queue, tenant)
        yield Open("sql", str(query_id), state, *whose, username, database, float(seconds), worker)


def _charts(connection: Connection) -> Iterator[Open]:
    rows = connection.exec_driver_sql(
        "SELECT subject, queue, tenant, username, database_name, worker, extract(epoch from now() - started_at) "
        f"FROM {executions.TABLE} WHERE kind = 'chart' AND ended_at IS NULL"
    )
    running = {str(row[0]): row for row in rows}
    for job_id, queue, tenant, username, database, worker, seconds in running.values():
        yield Open("chart", str(job_id), "running", queue, tenant, username, database, float(seconds), worker)
    waiting = [job for job in chart_jobs.registered() if job.job_id not in running]
    if not waiting:
        return
    users = [int(job.metadata["user_id"]) for job in waiting if job.metadata.get("user_id")]
    asked = connection.exec_driver_sql("SELECT id, username FROM ab_user WHERE id = ANY(%(users)s)", {"users": users})
    names = {int(row[0]): str(row[1]) for row in asked}
    tenants = {tenant.queue: tenant.id for tenant in process_topology.current().tenants}
    now = time.time()
    for job in waiting:
        username = names.get(job.metadata.get("user_id") or 0, "")
        tenant = tenants.get(job.queue, "")
        yield Open("chart", job.job_id, "waiting", job.queue, tenant, username, "", max(0.0, now - job.submitted_at))
